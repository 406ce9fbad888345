"""The server under grpc-fuzz: a short run of all phases, and what `make fuzz` runs around it."""

import asyncio
import sys
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from tests.e2e.server_process import ServerProcess
from tests.fuzz.conftest import DATABASE
from tests.fuzz.scripts import CONFIG, load_books

PHASES = ("examples", "coverage", "fuzzing", "wire", "stateful")
EXAMPLES, WORKERS = 10, 4


async def test_the_service_keeps_its_contract_whatever_is_sent(
    server: ServerProcess, mongod_uri: str, seed: int, tmp_path: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("grpc-fuzz"),
        *("run", "--config", CONFIG, "--target", server.address, "--seed", str(seed)),
        *("--max-examples", str(EXAMPLES), "--workers", str(WORKERS)),
        *("--state-directory", tmp_path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    assert [phase for phase in PHASES if f"\n{phase} " in output] == [*PHASES]
    assert server.log == [], "a call that is not the server's fault is no warning"
    client: MongoClient[dict[str, Any]]  # documents hold values of many types
    with MongoClient(mongod_uri) as client:
        assert client[DATABASE]["credit_transactions"].count_documents({}) > 0
        assert load_books().findings(client[DATABASE]) == []
