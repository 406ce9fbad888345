"""A fresh server for each test, and what is logged of files, kept instead of rendered."""

from tests.server.serving_fixtures import logged, neighbour, served, wire

__all__ = ["logged", "neighbour", "served", "wire"]
