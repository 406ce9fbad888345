"""Test that the server passes a short run of all phases of grpc-fuzz."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from credit_models.image import SERVICES
from credit_server.development.certificate import key_of, make_certificates
from credit_testing.ledger_check import findings
from credit_testing.scripts import load_script
from credit_testing.server import PATIENT, ServerProcess, migrated, running_server
from pymongo import MongoClient

from tests.fuzz.conftest import DATABASE
from tests.fuzz.scripts import CONFIG, RUN

PHASES = ("examples", "coverage", "fuzzing", "stateful")
CALLS = [
    f"{service.full_name}/{method.name}"
    for service in SERVICES
    for method in service.methods
    if method.name not in {"Write", "Watch", "ListAlertEvents"}  # the configuration excludes them
]
# The wire cases of all calls take 35 s of CPU time. All calls use the same transport, so each run
# sends only the cases of some calls, which the seed chooses. `make fuzz` sends the cases of all
# calls, and examples for minutes.
CALLS_ON_NGHTTP2, CALLS_ON_H2 = 4, 2
EXAMPLES, WORKERS = 3, 4
# The seed chooses one value of each field and constraint; `make fuzz` sends all values.
COVERAGE_VALUES = 1
# Every accepted call is made again without permission in four ways, and `make fuzz` goes deeper.
EXAMPLES_WITH_TOKENS = 2


async def _fuzz(
    server: ServerProcess, seed: int, state: Path, *phases: str, options: Sequence[str | Path] = ()
) -> None:
    """Run phases of grpc-fuzz, and check that they ran and passed."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("grpc-fuzz"),
        *("run", "--config", CONFIG, "--target", server.address, "--seed", str(seed)),
        *("--max-examples", str(EXAMPLES), "--coverage-values", str(COVERAGE_VALUES)),
        *("--workers", str(WORKERS)),
        # The test checks the answers, not their speed: other processes use the machine too.
        *("--request-timeout", "120", "--max-response-time", "60"),
        *("--state-directory", state, "--phases", ",".join(phases), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    assert [phase for phase in phases if f"\n{phase} " in output] == [*phases]
    assert server.log == [], "a call that is not the server's fault is no warning"


async def test_the_service_keeps_its_contract_for_any_request(
    server: ServerProcess, mongod_uri: str, seed: int, tmp_path: Path
) -> None:
    await _fuzz(server, seed, tmp_path, *PHASES)
    assert _check_ledger(mongod_uri) > 0


async def test_the_service_answers_every_wire_case_of_some_calls(
    server: ServerProcess, mongod_uri: str, seed: int, tmp_path: Path
) -> None:
    await _fuzz(server, seed, tmp_path, "wire", options=_some_calls(seed, CALLS_ON_NGHTTP2))
    _check_ledger(mongod_uri)


def _some_calls(seed: int, count: int) -> list[str]:
    chosen = Random(seed).sample(CALLS, count)
    return [option for call in chosen for option in ("--include-method", call)]


def _check_ledger(mongod_uri: str) -> int:
    """Check the ledger, and return the number of its transactions."""
    client: MongoClient[dict[str, Any]]  # documents hold values of many types
    with MongoClient(mongod_uri) as client:
        assert findings(client[DATABASE]) == []
        return client[DATABASE]["credit_transactions"].count_documents({})


async def test_the_service_on_h2_answers_the_wire_cases_of_some_calls(
    mongod_uri: str, database: str, seed: int, tmp_path: Path
) -> None:
    """Run the wire cases on h2: the other tests use nghttp2, which `make install` installs."""
    options = [*await migrated(mongod_uri, database), "--http2", "h2", "--log-level", "warning"]
    async with running_server(tmp_path, *PATIENT, *options) as server:
        await _fuzz(server, seed, tmp_path, "wire", options=_some_calls(seed, CALLS_ON_H2))


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
        *("--max-examples", str(EXAMPLES_WITH_TOKENS), *tokens.fuzzer_options),
    ]
    async with running_server(tmp_path, *server_options) as server:
        await _fuzz(server, seed, tmp_path, "examples", "fuzzing", options=options)
    statuses = Counter(_status(line) for line in audit.read_text().splitlines())
    # Each call that succeeded was also made in four ways without permission.
    assert statuses["UNAUTHENTICATED"] > statuses["OK"] > 0


def _status(line: str) -> str:
    status: str = json.loads(line)["status"]
    return status
