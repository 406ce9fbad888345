"""Test calls from browsers through Envoy, as `deploy/proxy/envoy-web.yaml` configures it."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import pytest
from credit_models import (
    AppId,
    Balance,
    BatchWriteRequest,
    BatchWriteResponse,
    CreditRequest,
    Operation,
    Purchase,
    PurchaseRequest,
    UserId,
)
from credit_models.codec import decode, encode
from credit_server.development.token import make_keys
from credit_testing import node
from credit_testing.pages import blocks
from credit_testing.ports import lasting_port
from credit_testing.server import PATIENT, ServerProcess, migrated, running_server
from grpclib.const import Status
from pymongo import AsyncMongoClient

from tests.e2e.proxy import program, running_proxy
from tests.e2e.scrape import scrape
from tests.e2e.tokens import token, token_options
from tests.e2e.web_calls import call, call_without_an_end, request

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "other-languages.md").read_text()
ORIGIN = "https://support.example.com"
BUFFER_BYTES = 32_768
"""What Envoy buffers of a request or an answer, as the file says."""
LONG = 300
"""Purchases that fill its buffers several times."""

# Uses the page's `page.ts` in one process with `shop.ts`.
MAIN = """
import "./shop.ts";
import { reasonOf } from "./credits.ts";
import { accountOf, transportFor } from "./page.ts";

const transport = transportFor(async () => process.env.CREDIT_TOKEN ?? "");
console.log(JSON.stringify(await accountOf(transport, 61, 1)));
await accountOf(transport, 61, 2).catch((error) => console.log(reasonOf(error)?.reason));
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Web:
    """A server with identities, Envoy in front of it, and the token of an identity of app 1."""

    server: ServerProcess
    port: int
    token: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}


@pytest.fixture(scope="module")
async def web(mongod_uri: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Web]:
    program("envoy-web")
    folder, database = tmp_path_factory.mktemp("web"), "test_web"
    private, public = make_keys(folder / "keys")
    options = [
        *await migrated(mongod_uri, database),
        *PATIENT,
        *token_options(public),
        *("--audit-log", str(folder / "audit.json")),
    ]
    port = lasting_port()
    async with running_server(folder, *options) as server:
        servers = (server.port, server.port)
        async with running_proxy("envoy-web", folder, port=port, servers=servers):
            found = Web(server=server, port=port, token=token(private, "support", app=1, actor=7))
            await _serves(found)
            yield found
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(database)


async def _serves(web: Web) -> None:
    """Wait until Envoy listens and has found the server healthy."""
    while True:
        try:
            ready = call(web.port, "GetAppBalance", AppId(app_id=1), web.bearer)
        except OSError:
            pass
        else:
            if ready.status is Status.OK:
                return
        await asyncio.sleep(0.05)


async def test_a_call_is_answered_and_observed_like_one_of_grpc(web: Web) -> None:
    before = await _handled(web, "AddCredits")
    write = CreditRequest(user_id=1, app_id=1, credits=50, created_by=7, idempotency_key="web")
    headers = {**web.bearer, "x-request-id": "from-page", "origin": ORIGIN}
    added = call(web.port, "AddCredits", write, headers)
    assert (added.status, added.messages) == (Status.OK, [b""])
    assert added.headers["x-request-id"] == "from-page"
    assert added.headers["access-control-allow-origin"] == ORIGIN
    assert (added.receipt.balance, added.receipt.replayed) == (50, False)
    again = call(web.port, "AddCredits", write, headers)
    assert again.receipt == replace(added.receipt, replayed=True)

    read = call(web.port, "GetAppBalance", AppId(app_id=1, user_id=1), web.bearer)
    assert decode(Balance, *read.messages).balance == 50

    assert await _handled(web, "AddCredits") == before + 2
    audit = (web.server.folder / "audit.json").read_text()
    (first, _) = [line for line in map(json.loads, audit.splitlines()) if line.get("key") == "web"]
    assert (first["identity"], first["status"]) == ("support", "OK")
    assert first["request_id"] == "from-page"


def test_a_request_and_a_list_that_are_longer_than_the_buffers_of_envoy_pass(web: Web) -> None:
    add = CreditRequest(user_id=2, app_id=1, credits=LONG, created_by=7)
    buys = [
        PurchaseRequest(
            user_id=2, app_id=1, report_id=f"r-{i}", report_name="n" * 256, credits=1, created_by=7
        )
        for i in range(LONG)
    ]
    batch = BatchWriteRequest(
        operations=[Operation(add_credits=add), *(Operation(use_credits=buy) for buy in buys)]
    )
    assert len(encode(batch)) > 2 * BUFFER_BYTES
    written = call(web.port, "/credit.v1.LedgerService/BatchWrite", batch, web.bearer)
    outcomes = decode(BatchWriteResponse, *written.messages).outcomes
    assert all(outcome.receipt is not None for outcome in outcomes)

    listed = call(web.port, "ListUserPurchases", UserId(user_id=2), web.bearer)
    assert listed.status is Status.OK
    assert sum(map(len, listed.messages)) > 2 * BUFFER_BYTES
    purchases = [decode(Purchase, message) for message in listed.messages]
    assert [purchase.report_id for purchase in purchases] == [buy.report_id for buy in buys]


@pytest.mark.parametrize("method", ["GetUserCredits", "ListUserPurchases"])
def test_a_rejection_has_its_status_and_its_reason(web: Web, method: str) -> None:
    def rejected(user_id: int, headers: dict[str, str]) -> tuple[Status, str | None]:
        answer = call(web.port, method, UserId(user_id=user_id), headers)
        assert answer.sentence
        assert answer.headers["x-request-id"]
        return answer.status, answer.reason

    forged = {"authorization": f"{web.bearer['authorization']}x"}
    assert rejected(3, {}) == (Status.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert rejected(3, forged) == (Status.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert rejected(0, web.bearer) == (Status.INVALID_ARGUMENT, "INVALID_FIELD")


def test_an_identity_is_limited_to_its_apps_and_its_actor(web: Web) -> None:
    def rejected(app_id: int, created_by: int) -> tuple[Status, str | None]:
        write = CreditRequest(user_id=4, app_id=app_id, credits=1, created_by=created_by)
        answer = call(web.port, "AddCredits", write, web.bearer)
        return answer.status, answer.reason

    assert rejected(2, 7) == (Status.PERMISSION_DENIED, "APP_NOT_ALLOWED")
    assert rejected(1, 8) == (Status.PERMISSION_DENIED, "ACTOR_NOT_ALLOWED")


def test_the_server_ends_a_call_at_the_deadline_of_the_page(web: Web) -> None:
    headers = {**web.bearer, "grpc-timeout": "100m"}
    answer = call_without_an_end(web.port, "/credit.v1.LedgerService/Write", headers)
    assert answer.status is Status.DEADLINE_EXCEEDED
    assert answer.sentence.startswith("the deadline has passed")


def test_a_browser_lets_only_pages_of_the_allowed_origins_call(web: Web) -> None:
    path = "/credit.v1.CreditService/AddCredits"
    asked = "authorization,content-type,grpc-timeout,x-grpc-web,x-user-agent"
    preflight = {
        "access-control-request-method": "POST",
        "access-control-request-headers": asked,
    }
    status, allowed = request(web.port, "OPTIONS", path, {"origin": ORIGIN, **preflight})
    assert status == 200
    assert allowed["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-credentials" not in allowed
    assert set(asked.split(",")) <= set(allowed["access-control-allow-headers"].split(","))

    other = "https://support.example.com.evil.example"
    _, denied = request(web.port, "OPTIONS", path, {"origin": other, **preflight})
    assert "access-control-allow-origin" not in denied


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/grpc.health.v1.Health/Check", 404),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", 404),
        ("/credit.v1.CreditService%2fAddCredits", 400),
    ],
)
def test_only_the_services_of_the_contract_are_reachable(web: Web, path: str, status: int) -> None:
    assert request(web.port, "POST", path, web.bearer)[0] == status


def test_the_typescript_programs_of_the_page_print_what_it_shows(web: Web, tmp_path: Path) -> None:
    project = _project(tmp_path, web)
    environment = {
        "PATH": os.pathsep.join(
            map(str, [node.PROGRAMS, node.MODULES / ".bin", Path(sys.executable).parent])
        ),
        "CREDIT_TOKEN": web.token,
    }
    for command in ("buf generate", "tsc", "node main.ts"):
        done = subprocess.run(
            command.split(),
            cwd=project,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (shown, *_) = blocks(PAGE, "text")
    assert done.stdout == f'{shown}{{"balance":100,"reports":["Traffic"]}}\nAPP_NOT_ALLOWED\n'


def _project(folder: Path, web: Web) -> Path:
    """Write the page's programs into a folder that is set up as the page describes."""
    for block in blocks(PAGE, "ts"):
        name = block.partition("\n")[0].removeprefix("// ")
        text = block.replace("127.0.0.1:50051", web.server.address)
        (folder / name).write_text(
            text.replace("https://credits.example.com", f"http://127.0.0.1:{web.port}")
        )
    (folder / "main.ts").write_text(MAIN)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "buf.gen.yaml").write_text(blocks(PAGE, "yaml")[0])
    (folder / "tsconfig.json").write_text(blocks(PAGE, "json")[0])
    (folder / "contracts").symlink_to(ROOT / "contracts")
    (folder / "node_modules").symlink_to(node.MODULES)
    rpc = folder / "googleapis" / "google" / "rpc"
    rpc.mkdir(parents=True)
    shutil.copy(str(files("google.rpc") / "error_details.proto"), rpc)
    return folder


async def _handled(web: Web, method: str) -> float:
    """Return how many calls of a method have ended with OK, by the server's metrics."""
    labels = {
        "grpc_type": "unary",
        "grpc_service": "credit.v1.CreditService",
        "grpc_method": method,
        "grpc_code": "OK",
    }
    return (await scrape(web.server)).get(
        ("grpc_server_handled_total", frozenset(labels.items())), 0
    )
