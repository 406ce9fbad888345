"""Test that the server passes a short run of all phases of grpc-fuzz."""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from credit_server.development.certificate import key_of, make_certificates
from credit_testing.ledger_check import findings
from credit_testing.scripts import load_script
from credit_testing.server import PATIENT, ServerProcess, migrated, running_server
from pymongo import MongoClient

from tests.fuzz.conftest import DATABASE
from tests.fuzz.scripts import CONFIG, RUN

PHASES = ("examples", "coverage", "fuzzing", "stateful", "wire")
# One transport serves all calls, so that what happens on the wire does not depend on the message.
ON_THE_WIRE = (
    *("--phases", "wire"),
    *("--include-method", "credit.v1.CreditService/*"),
    *("--include-method", "credit.v1.LedgerService/BatchWrite"),
)
EXAMPLES, WORKERS = 10, 4


async def _fuzz(server: ServerProcess, seed: int, state: Path, *options: str | Path) -> str:
    """Run grpc-fuzz, check that it passes, and return its output."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("grpc-fuzz"),
        *("run", "--config", CONFIG, "--target", server.address, "--seed", str(seed)),
        *("--max-examples", str(EXAMPLES), "--workers", str(WORKERS)),
        # The test checks the answers, not their speed: other processes use the machine too.
        *("--request-timeout", "120", "--max-response-time", "60"),
        *("--state-directory", state, *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    assert server.log == [], "a call that is not the server's fault is no warning"
    return output


async def test_the_service_keeps_its_contract_for_any_request(
    server: ServerProcess, mongod_uri: str, seed: int, tmp_path: Path
) -> None:
    output = await _fuzz(server, seed, tmp_path, "--phases", ",".join(PHASES[:-1]))
    output += await _fuzz(server, seed, tmp_path, *ON_THE_WIRE)
    assert [phase for phase in PHASES if f"\n{phase} " in output] == [*PHASES]
    client: MongoClient[dict[str, Any]]  # documents hold values of many types
    with MongoClient(mongod_uri) as client:
        assert client[DATABASE]["credit_transactions"].count_documents({}) > 0
        assert findings(client[DATABASE]) == []


async def test_the_service_on_h2_answers_every_wire_case(
    mongod_uri: str, database: str, seed: int, tmp_path: Path
) -> None:
    """Run the wire cases on h2: the other tests use nghttp2, which `make install` installs."""
    options = [*await migrated(mongod_uri, database), "--http2", "h2", "--log-level", "warning"]
    async with running_server(tmp_path, *PATIENT, *options) as server:
        await _fuzz(server, seed, tmp_path, *ON_THE_WIRE)


async def test_the_service_serves_no_request_without_a_token(
    mongod_uri: str, database: str, seed: int, tmp_path: Path
) -> None:
    tokens = load_script(RUN).make_tokens(tmp_path / "keys", minutes=5)
    audit = tmp_path / "audit.log"
    made = make_certificates(tmp_path / "certificates", client="fuzzer", days=30)
    server_options = [
        *await migrated(mongod_uri, database),
        *map(str, tokens.server_options),
        *("--tls-certificate", str(made.server), "--tls-key", str(key_of(made.server))),
        *("--tls-client-ca", str(made.ca), "--audit-log", str(audit), "--log-level", "warning"),
    ]
    options = [
        *("--reflect", "--tls-ca", made.ca),
        *("--tls-certificate", made.client, "--tls-key", key_of(made.client)),
        *("--phases", "examples,fuzzing", *tokens.fuzzer_options),
    ]
    async with running_server(tmp_path, *server_options) as server:
        await _fuzz(server, seed, tmp_path, *options)
    statuses = Counter(_status(line) for line in audit.read_text().splitlines())
    # Each call that succeeded was also made in four ways without permission.
    assert statuses["UNAUTHENTICATED"] > statuses["OK"] > 0


def _status(line: str) -> str:
    status: str = json.loads(line)["status"]
    return status
