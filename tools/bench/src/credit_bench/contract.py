"""The contract's protobuf and gRPC classes, compiled with google's own compiler.

They are compiled at run time, so the benchmark shares no code with the service that it measures
and is never older than the contract.
"""

import importlib
import sys
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from grpc_tools import protoc  # type: ignore[import-untyped]  # grpcio-tools ships no types

CONTRACTS = Path(__file__).resolve().parents[4] / "contracts"
_SOURCES = sorted(str(path.relative_to(CONTRACTS)) for path in CONTRACTS.rglob("*.proto"))


class ContractNotCompiled(Exception):
    """protoc rejected the contract; its standard error has the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """The modules that protoc generates from `credit.v1`.

    Attributes:
        messages: The module with the message classes, which exist only at run time and are
            therefore untyped.
        services: The module with the service's base class and the stub.
        ledger: The module with the messages of `LedgerService`.
        history: The module with the messages of `HistoryService`.
    """

    messages: ModuleType
    services: ModuleType
    ledger: ModuleType
    history: ModuleType


@cache
def contract() -> Contract:
    """Compile the contract with protoc and import the result, once per process, in 0.1 seconds.

    Raises:
        ContractNotCompiled: protoc rejected the contract.
    """
    well_known = resources.files("grpc_tools") / "_proto"
    with TemporaryDirectory(prefix="credit-bench-stubs-") as folder:
        status = protoc.main(
            [
                "protoc",
                f"-I{CONTRACTS}",
                f"-I{well_known}",
                f"--python_out={folder}",
                f"--grpc_python_out={folder}",
                *_SOURCES,
            ]
        )
        if status != 0:
            raise ContractNotCompiled(f"protoc ended with status {status} on {CONTRACTS}")
        sys.path.insert(0, folder)
        try:
            importlib.invalidate_caches()
            return Contract(
                messages=importlib.import_module("credit.v1.credit_pb2"),
                services=importlib.import_module("credit.v1.credit_pb2_grpc"),
                ledger=importlib.import_module("credit.v1.ledger_pb2"),
                history=importlib.import_module("credit.v1.history_pb2"),
            )
        finally:
            sys.path.remove(folder)
