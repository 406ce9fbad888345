"""Provide fixtures for all tests: a real mongod, new databases in it, real servers, and a seed."""

import asyncio
import gc
import logging
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack
from functools import lru_cache
from pathlib import Path
from random import SystemRandom

import pytest
import structlog
from credit_server.log import LIBRARIES
from credit_testing.commands import build_once
from credit_testing.databases import MigratedDatabases
from credit_testing.memory_files import folder_in_memory
from credit_testing.mongod import running_mongod
from credit_testing.order import longest_first
from credit_testing.ports import lasting_port
from credit_testing.server import ServerProcess, running_server
from credit_testing.template import create_subprocess_exec
from pymongo import AsyncMongoClient, MongoClient
from structlog._config import BoundLoggerLazyProxy

StartServer = Callable[..., Awaitable[ServerProcess]]
SEED_VARIABLE = "TEST_SEED"
LONGEST = [
    "e2e/test_watch_elections.py",
    "resilience/test_attacks.py",
    "fuzz/test_accounts.py",
    "fuzz/test_service.py",
    "fuzz/test_tenants_machine.py",
    "e2e/test_serve.py",
    "e2e/test_proxies.py",
    "torture/test_run.py",
    "e2e/test_workers.py",
    "server/backup/test_backup.py",
    "bench/test_run.py",
    "simulate/test_mutations.py",
    "contract/test_check.py",
    "server/store/test_upgrade.py",
    "e2e/test_web.py",
    "grpc_fuzz/test_runtimes.py",
    "resilience/test_recovery.py",
    "fuzz/test_ledger_model.py",
    "server/verify/test_damage.py",
    "e2e/test_money_is_conserved.py",
    "grpc_fuzz/test_detection.py",
]
"""The test files that take more than 10 s each, longest first."""


def pytest_configure() -> None:
    """Make the tests cheaper: see also the modules that are called.

    By default, the collector takes 5 to 12 % of the CPU time of tests that run in this process. The
    colored tracebacks of errors that servers log take 4 %, so tracebacks are plain.
    """
    structlog.dev.ConsoleRenderer.get_active().exception_formatter = structlog.dev.plain_traceback
    build_once()
    folder = folder_in_memory()
    if folder is not None:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(folder))
    gc.set_threshold(10_000, 20, 20)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests without the garbage collector, which frees none of them.

    It takes a third of the CPU of a collection, and later as much again for each run over all
    modules and tests. They stay until the end, so it does not look at them any more.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    here = Path(__file__).parent
    files = [item.path.relative_to(here).as_posix() for item in items]
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items[:] = [items[index] for index in longest_first(files, LONGEST, workers)]


@pytest.fixture
def seed() -> int:
    """Return the seed of random tests: a new one for each run, or `TEST_SEED` to replay one."""
    given = os.environ.get(SEED_VARIABLE)
    seed = SystemRandom().randrange(2**32) if given is None else int(given)
    print(f"replay with {SEED_VARIABLE}={seed}")  # noqa: T201 - pytest shows it with a failure
    return seed


@pytest.fixture(scope="session")
async def mongod_uri(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Return the connection string of a replica set that runs during all tests of a worker.

    Failpoints are enabled (`configureFailPoint`); a test that sets one must switch it off.
    """
    folder = tmp_path_factory.mktemp("mongod")
    async with running_mongod(folder, "--setParameter", "enableTestCommands=1") as mongod:
        yield mongod.uri


@pytest.fixture
def quick_journal(mongod_uri: str) -> Iterator[None]:
    """Let mongod confirm a linearizable read within 2 ms.

    If nothing is written, the only node of a replica set confirms one when it next writes its
    journal, which is every 100 ms by default.
    """
    with MongoClient[dict[str, object]](mongod_uri) as client:
        client.admin.command("setParameter", 1, journalCommitInterval=2)
        try:
            yield
        finally:
            client.admin.command("setParameter", 1, journalCommitInterval=100)


@pytest.fixture
async def database(mongod_uri: str) -> AsyncIterator[str]:
    """Return the name of a database that does not exist yet, and drop it after the test."""
    name = f"test_{uuid.uuid4().hex}"
    yield name
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(name)


@pytest.fixture(scope="session")
def migrated_databases(mongod_uri: str) -> Iterator[MigratedDatabases]:
    """Return the migrated databases that the tests of a worker use one after the other."""
    with MigratedDatabases(mongod_uri) as databases:
        yield databases


@pytest.fixture
async def migrated_database(migrated_databases: MigratedDatabases) -> AsyncIterator[str]:
    """Return the name of a migrated database without documents."""
    async with migrated_databases.lend() as name:
        yield name


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Undo the configuration of a server or a command in this process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    if structlog.is_configured():
        root.handlers[:] = handlers
        root.setLevel(level)
        for library in LIBRARIES:
            logging.getLogger(library).setLevel(logging.NOTSET)
        structlog.reset_defaults()
        _forget_loggers()


def _forget_loggers() -> None:
    """Clear the loggers that structlog has cached: they write to the streams of this test."""
    modules = [name for name in sys.modules if name.startswith("credit_server.")]
    for logger in _loggers(tuple(modules)):
        vars(logger).pop("bind", None)


@lru_cache(maxsize=1)
def _loggers(modules: tuple[str, ...]) -> list[BoundLoggerLazyProxy]:
    """Return the loggers of some modules."""
    return [
        value
        for name in modules
        for value in vars(sys.modules[name]).values()
        if isinstance(value, BoundLoggerLazyProxy)
    ]


@pytest.fixture
def collected_garbage() -> Iterator[None]:
    """Run the garbage collector at the end of a test."""
    yield
    gc.collect()


@pytest.fixture(scope="module", params=["nghttp2", "h2"])
def http2_engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a module's tests with each library for HTTP/2, in servers and in the SDK."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CREDIT_HTTP2", request.param)
        yield request.param


@pytest.fixture
def unused_tcp_port() -> int:
    """Return a free port that no concurrent test can take."""
    return lasting_port()


@pytest.fixture(scope="module")
def forked_children() -> Iterator[None]:
    """Make tools start their Python programs as forks. Each saves half a second of imports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "create_subprocess_exec", create_subprocess_exec)
        yield


@pytest.fixture
async def credit_server_process(tmp_path: Path) -> AsyncIterator[StartServer]:
    """Return a function that starts real servers, and stop the running ones after the test.

    Without options a server has an embedded mongod, with its data in `tmp_path / ".credit-data"`.
    """
    async with AsyncExitStack() as running:

        async def start(*options: str, **environment: str) -> ServerProcess:
            return await running.enter_async_context(
                running_server(tmp_path, *options, environment=environment)
            )

        yield start
