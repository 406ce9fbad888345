"""A fresh server for each test."""

from tests.server.serving_fixtures import bystander, logged, served, wire

__all__ = ["bystander", "logged", "served", "wire"]
