"""A fresh server for each test, and what is logged of files, kept instead of rendered."""

from tests.server.serving_fixtures import bystander, logged, served, wire

__all__ = ["bystander", "logged", "served", "wire"]
