"""Reports of a run, for people and for machines."""

from grpc_fuzz.report.console import Console
from grpc_fuzz.report.junit import JUnit
from grpc_fuzz.report.ndjson import Ndjson

__all__ = ["Console", "JUnit", "Ndjson"]
