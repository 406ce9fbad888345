"""A fresh server for each test."""

from tests.server.serving_fixtures import logged, neighbour, served, wire

__all__ = ["logged", "neighbour", "served", "wire"]
