"""Servers that answer one trivial call: the upper limits of a unary call.

Runs one of them in its own process. Each serves `GetAppBalance` without a database:

- `grpcio.aio` and `grpclib`: the libraries with a method that returns a constant.
- `transport`: our HTTP/2, gRPC and access layers with the same method.
- `all layers`: everything that `credit-server serve` runs, on the store in memory.
"""

import argparse
import asyncio
import signal
from typing import Any

import uvloop
from credit_models import AppId, Balance, CreditServiceBase
from credit_models.codec import WireCodec
from credit_models.http2_engine import Engine
from credit_server import log
from credit_server.access.audit import AuditLog
from credit_server.access.authorize import Access
from credit_server.api.contract import CONTRACT
from credit_server.api.service import CreditService
from credit_server.commit import Committer
from credit_server.grpc.handler import CallLimits
from credit_server.grpc.server import GrpcServer
from credit_server.grpc.standard import with_standard_services
from credit_server.store.memory import MemoryStore
from credit_server.telemetry import Telemetry
from grpc import aio  # type: ignore[import-untyped]  # grpcio ships no types
from grpclib.health.check import ServiceStatus
from grpclib.server import Server

from credit_bench.contract import contract
from credit_bench.workloads import System

HOST = "127.0.0.1"
_BALANCE = 7
# A load of a thousand callers on one core may delay the event loop; it must not be shed.
_LIMITS = CallLimits(loop_lag_seconds_max=60.0)


class _Constant(CreditServiceBase):
    """A service without a ledger."""

    async def get_app_balance(self, message: AppId) -> Balance:
        """Return a constant."""
        return Balance(app_id=message.app_id, balance=_BALANCE)


async def _wait_for_signal() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


async def _serve_grpcio(port: int) -> None:
    messages = contract().messages

    # The base class exists only at run time, so the class is defined here.
    class Constant(contract().services.CreditServiceServicer):  # type: ignore[misc]
        # Any: the message classes exist only at run time.
        async def GetAppBalance(self, request: Any, _: aio.ServicerContext) -> Any:  # noqa: N802
            return messages.Balance(app_id=request.app_id, balance=_BALANCE)

    server = aio.server()
    contract().services.add_CreditServiceServicer_to_server(Constant(), server)
    server.add_insecure_port(f"{HOST}:{port}")
    await server.start()
    await _wait_for_signal()
    await server.stop(0)


async def _serve_grpclib(port: int) -> None:
    server = Server([_Constant()], codec=WireCodec())
    await server.start(HOST, port)
    await _wait_for_signal()
    server.close()


async def _serve_transport(port: int, engine: Engine) -> None:
    access = Access(None, audit=AuditLog(None, translate=CONTRACT.translate))
    status = ServiceStatus()
    services = with_standard_services([_Constant()], status, CONTRACT.files)
    server = GrpcServer(services, limits=_LIMITS, access=access, contract=CONTRACT, engine=engine)
    await server.start(HOST, port)
    await _wait_for_signal()
    await server.stop(grace_seconds=0)


async def _serve_all_layers(port: int, engine: Engine) -> None:
    audit = AuditLog(None, translate=CONTRACT.translate)
    store, telemetry, status = MemoryStore(), Telemetry(), ServiceStatus()
    async with Committer(store, observer=telemetry.commits) as committer:
        services = with_standard_services(
            [CreditService(committer, store, audit)], status, CONTRACT.files
        )
        server = GrpcServer(
            services,
            limits=_LIMITS,
            access=Access(None, audit=audit),
            contract=CONTRACT,
            observer=telemetry.calls(services, server_address=HOST, server_port=port),
            write_queue=committer,
            engine=engine,
        )
        await server.start(HOST, port)
        await _wait_for_signal()
        await server.stop(grace_seconds=0)


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m credit_bench.reference", description=__doc__)
    parser.add_argument("--system", type=System, required=True, help="the server to run")
    parser.add_argument("--port", type=int, required=True, help="the port on 127.0.0.1")
    arguments = parser.parse_args()
    port = arguments.port
    log.configure("json", "info")  # as `credit-server serve`, which logs a line for each call
    servers = {
        System.GRPCIO: lambda: _serve_grpcio(port),
        System.GRPCLIB: lambda: _serve_grpclib(port),
        System.TRANSPORT: lambda: _serve_transport(port, Engine.AUTO),
        System.TRANSPORT_H2: lambda: _serve_transport(port, Engine.H2),
        System.LAYERS: lambda: _serve_all_layers(port, Engine.AUTO),
        System.LAYERS_H2: lambda: _serve_all_layers(port, Engine.H2),
    }
    uvloop.run(servers[arguments.system]())


if __name__ == "__main__":
    main()
