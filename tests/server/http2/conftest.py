"""Start a new server for each test, with each library for HTTP/2."""

from tests.server.serving_fixtures import bystander, engine, logged, served, wire

__all__ = ["bystander", "engine", "logged", "served", "wire"]
