"""Telling people and machines how a run goes."""

from grpc_fuzz.report.console import Console
from grpc_fuzz.report.junit import JUnit
from grpc_fuzz.report.listener import Listener
from grpc_fuzz.report.ndjson import Ndjson

__all__ = ["Console", "JUnit", "Listener", "Ndjson"]
