"""Test that two tenants on one server cannot use or read each other's data, and find holes."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from credit_models.image import SERVICES, method_path
from credit_models.ledger import Command
from credit_server.access import authorize, open_authenticator
from credit_server.access.authorize import AccessLimits
from credit_server.access.identity import AppNotAllowed, Identity
from credit_server.api import policies
from credit_server.commit.batch import BatchWriter, DedupIndex
from credit_server.development.command import AUDIENCE, ISSUER
from credit_server.development.token import make_keys
from credit_server.settings import AccessSettings
from credit_server.store.history import Page, PurchaseRow, TransactionQuery, TransactionRow
from credit_server.store.memory import MemoryStore
from credit_testing.server import migrated, running_server
from hypothesis.errors import Flaky
from structlog.testing import capture_logs

from tests.fuzz import play_tenants
from tests.fuzz.tenant_calls import Calls
from tests.fuzz.tenant_calls_machine import TenantCallsMachine
from tests.fuzz.tenant_history_machine import TenantHistoryMachine
from tests.fuzz.tenant_policies_machine import TenantPoliciesMachine
from tests.fuzz.tenant_writes_machine import TenantWritesMachine
from tests.fuzz.tenants_machine import TenantsMachine
from tests.fuzz.two_tenants import TwoTenants, explore
from tests.server.requests import PATHS
from tests.server.serving import serving

EXAMPLES, EXAMPLES_MAX = 8, 200
RUNS_MAX = 8
# This seed finds every hole early. Others can take a hundred times the CPU time. Tests without a
# hole use a new seed in each run.
HOLE_SEED = 4
EVERY_ANSWER = {
    *("OK", "APP_NOT_ALLOWED", "ACTOR_NOT_ALLOWED", "INVALID_FIELD"),
    *("IDEMPOTENCY_KEY_REUSED", "INSUFFICIENT_CREDITS"),
}
EVERY_CHANGE = {"OK", "APP_NOT_ALLOWED", "ACTOR_NOT_ALLOWED", "INVALID_FIELD", "REVISION_CHANGED"}
"""Every answer to a call about a policy."""


def _check_one_app(identity: Identity | None, request: Any) -> None:
    """Look at the app that gives, and not at the one that receives. Any: any request."""
    if identity is not None and not identity.may_act_in(request.app_id):
        raise AppNotAllowed(request.app_id)


# Each hole: where it is, and the code that replaces the check there.
WRITE_HOLES: dict[str, tuple[object, str, Callable[..., object]]] = {
    "transfers into any app": (authorize, "check_app", _check_one_app),
    "writes in another's name": (authorize, "check_actor", lambda identity, request: None),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Guarded:
    """A server that verifies tokens, and the key that signs them."""

    address: str
    key_file: Path

    async def explore(
        self,
        seed: int,
        examples: int,
        *,
        shrink: bool = True,
        game: type[TwoTenants] = TenantsMachine,
    ) -> Counter[str]:
        calls = Calls(self.address, self.key_file)
        try:
            return await asyncio.to_thread(
                explore, game, calls, seed=seed, examples=examples, shrink=shrink
            )
        finally:
            calls.close()


@asynccontextmanager
async def _guarded(folder: Path) -> AsyncIterator[Guarded]:
    """Run a server in this process, on the memory store."""
    private, public = make_keys(folder)
    settings = AccessSettings(token_keys=public, token_issuer=ISSUER, token_audience=AUDIENCE)
    serve = serving(
        # Its clock is ahead, so that queries of apps have the latest entries too.
        MemoryStore(clock=lambda: time.time() + 3600),
        authenticator=open_authenticator(settings.identity_files),
        access_limits=AccessLimits(calls_per_second=0),
    )
    with capture_logs():  # instead of rendering a line for each call
        async with serve as served:
            yield Guarded(address=f"127.0.0.1:{served.port}", key_file=private)


@pytest.mark.usefixtures("quick_journal")
async def test_the_real_server_isolates_its_tenants(
    mongod_uri: str, database: str, seed: int, tmp_path: Path
) -> None:
    private, public = make_keys(tmp_path)
    options = [
        *await migrated(mongod_uri, database),
        *("--token-keys", str(public), "--token-issuer", ISSUER, "--token-audience", AUDIENCE),
        *("--rate-per-second", "0", "--log-level", "warning"),
    ]
    async with running_server(tmp_path, *options) as process:
        guarded = Guarded(address=process.address, key_file=private)
        answers = await _answers(guarded, TenantsMachine, {"APP_NOT_ALLOWED"}, seed=seed)
        changes = await guarded.explore(seed, EXAMPLES, game=TenantPoliciesMachine)
    assert {"APP_NOT_ALLOWED"} <= answers <= EVERY_ANSWER
    assert {*changes} <= EVERY_CHANGE


async def test_the_server_isolates_the_writes_and_references_of_its_tenants(
    seed: int, tmp_path: Path
) -> None:
    expected = {"OK", "APP_NOT_ALLOWED", "ACTOR_NOT_ALLOWED", "HOLD_NOT_FOUND"}
    async with _guarded(tmp_path) as guarded:
        assert await _answers(guarded, TenantWritesMachine, expected, seed=seed) >= expected


@pytest.mark.parametrize("hole", WRITE_HOLES)
async def test_each_hole_in_the_isolation_of_writes_is_found(
    hole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*WRITE_HOLES[hole])
    async with _guarded(tmp_path) as guarded:
        with pytest.raises((AssertionError, Flaky)):
            await guarded.explore(HOLE_SEED, EXAMPLES_MAX, shrink=False, game=TenantWritesMachine)


def _any_change(request: object, stored: object, *, unchanged: bool) -> bool:
    """Look at no revision."""
    return True


POLICY_HOLES: dict[str, tuple[object, str, Callable[..., object]]] = {
    "policies of any app": (authorize, "check_app", lambda identity, request: None),
    "changes in another's name": (authorize, "check_actor", lambda identity, request: None),
    "changes at any revision": (policies, "_is_expected", _any_change),
}


async def test_the_server_isolates_the_policies_of_its_tenants(seed: int, tmp_path: Path) -> None:
    async with _guarded(tmp_path) as guarded:
        answers = await _answers(
            guarded, TenantPoliciesMachine, {"OK", "APP_NOT_ALLOWED"}, seed=seed
        )
    assert {"OK", "APP_NOT_ALLOWED"} <= answers <= EVERY_CHANGE


@pytest.mark.parametrize("hole", POLICY_HOLES)
async def test_each_hole_in_the_isolation_of_policies_is_found(
    hole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*POLICY_HOLES[hole])
    async with _guarded(tmp_path) as guarded:
        with pytest.raises((AssertionError, Flaky)):
            await guarded.explore(HOLE_SEED, EXAMPLES_MAX, shrink=False, game=TenantPoliciesMachine)


# Each hole: where it is, and the code that replaces the check there.
CALL_HOLES: dict[str, tuple[object, str, Callable[..., object]]] = {
    "calls in any app": (authorize, "check_app", lambda identity, request: None),
    "calls in another's name": (authorize, "check_actor", lambda identity, request: None),
    "the revision of all apps": (
        authorize,
        "visible_revision",
        lambda account, identity: account.revision,
    ),
    "transactions of all apps": (authorize, "visible_apps", lambda identity: None),
}


async def test_every_call_of_the_contract_is_made_and_isolates_the_tenants(
    seed: int, tmp_path: Path
) -> None:
    async with _guarded(tmp_path) as guarded:
        calls = Calls(guarded.address, guarded.key_file)
        try:
            await asyncio.to_thread(
                explore, TenantCallsMachine, calls, seed=seed, examples=EXAMPLES // 2, shrink=False
            )
        finally:
            calls.close()
    assert {*calls.sent} == {*PATHS.values()}
    unset = {
        (method.full_name, name)
        for service in SERVICES
        for method in service.methods
        for name in ("min_revision", "from_now")
        if name in method.input_type.fields_by_name and name not in calls.sent[method_path(method)]
    }
    assert unset == set()


@pytest.mark.parametrize("hole", CALL_HOLES)
async def test_each_hole_in_the_isolation_of_any_call_is_found(
    hole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*CALL_HOLES[hole])
    async with _guarded(tmp_path) as guarded:
        with pytest.raises((AssertionError, Flaky)):
            await guarded.explore(HOLE_SEED, EXAMPLES_MAX, shrink=False, game=TenantCallsMachine)


async def test_every_kind_of_answer_is_given(tmp_path: Path) -> None:
    async with _guarded(tmp_path) as guarded:
        assert await _answers(guarded, TenantsMachine, EVERY_ANSWER, seed=1) == EVERY_ANSWER
        assert await _answers(guarded, TenantPoliciesMachine, EVERY_CHANGE, seed=1) == EVERY_CHANGE


async def _answers(
    guarded: Guarded, game: type[TwoTenants], expected: set[str], *, seed: int
) -> set[str]:
    """Explore until every expected answer was given, which takes some seeds several runs."""
    answers: set[str] = set()
    for run in range(RUNS_MAX):
        answers |= {*await guarded.explore(seed + run, EXAMPLES, game=game)}
        if answers >= expected:
            break
    return answers


def _all_purchases(
    store: MemoryStore,
    user_id: int,
    apps: frozenset[int] | None,
    *,
    after_sequence: int,
    stored_sequence: int = 0,
) -> AsyncIterator[Sequence[PurchaseRow]]:
    return _LIST_PURCHASES(store, user_id, None, after_sequence=after_sequence)


def _whole_transactions(
    store: MemoryStore,
    user_id: int,
    apps: frozenset[int] | None,
    *,
    after_sequence: int,
    stored_sequence: int = 0,
) -> AsyncIterator[Sequence[TransactionRow]]:
    return _LIST_TRANSACTIONS(store, user_id, apps)


async def _pages_of_all_apps(store: MemoryStore, query: TransactionQuery) -> Page[TransactionRow]:
    apps = query.apps if query.user_id is None else None
    return await _QUERY_TRANSACTIONS(store, replace(query, apps=apps))


def _with_keys_of_all_apps(writer: BatchWriter, commands: Sequence[Command]) -> DedupIndex:
    known = DedupIndex()
    for command in commands:
        for entry in writer._by_key.values():
            if (entry.user_id, entry.key) == (command.user_id, command.key):
                known.by_key[command.user_id, command.app_id, command.key] = entry
    return known


_LIST_PURCHASES = MemoryStore.list_purchases
_LIST_TRANSACTIONS = MemoryStore.list_transactions
_QUERY_TRANSACTIONS = MemoryStore.query_transactions

# Each hole: where it is, and the code that replaces the check there.
HOLES: dict[str, tuple[object, str, Callable[..., object]]] = {
    "writes and totals in any app": (authorize, "check_app", lambda identity, request: None),
    "writes in another's name": (authorize, "check_actor", lambda identity, request: None),
    "all entries of all apps": (authorize, "visible_apps", lambda identity: None),
    "purchases of all apps": (MemoryStore, "list_purchases", _all_purchases),
    "balances of all apps": (authorize, "visible_account", lambda account, identity: account),
    "entries from the beginning": (MemoryStore, "list_transactions", _whole_transactions),
    "keys of all apps": (BatchWriter, "_cached", _with_keys_of_all_apps),
}


@pytest.mark.parametrize("hole", HOLES)
async def test_each_hole_in_the_isolation_is_found(
    hole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*HOLES[hole])
    async with _guarded(tmp_path) as guarded:
        # Flaky: found once, and not found when hypothesis repeated the same calls.
        with pytest.raises((AssertionError, Flaky)):
            await guarded.explore(HOLE_SEED, EXAMPLES_MAX, shrink=False)


async def test_the_server_isolates_the_history_of_its_tenants(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _guarded(tmp_path) as guarded:
        answers = await guarded.explore(seed, EXAMPLES, game=TenantHistoryMachine)
        assert {*answers} <= {*EVERY_ANSWER, "TRANSACTION_NOT_FOUND"}
        monkeypatch.setattr(MemoryStore, "query_transactions", _pages_of_all_apps)
        with pytest.raises((AssertionError, Flaky)):
            await guarded.explore(HOLE_SEED, EXAMPLES_MAX, shrink=False, game=TenantHistoryMachine)


async def test_the_program_of_make_fuzz_reports_its_result(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Shrinking the calls takes too long for a test.
    monkeypatch.setattr(play_tenants, "explore", partial(explore, shrink=False))
    monkeypatch.setattr(play_tenants, "EXAMPLES_AT_A_TIME", EXAMPLES // 4)
    async with _guarded(tmp_path) as guarded:
        arguments = (guarded.address, str(guarded.key_file), str(seed), "0")
        assert await asyncio.to_thread(play_tenants.main, *arguments) == 0
        assert "APP_NOT_ALLOWED" in capsys.readouterr().out
        monkeypatch.setattr(authorize, "check_app", lambda identity, request: None)
        assert await asyncio.to_thread(play_tenants.main, *arguments) == 1
    errors = capsys.readouterr().err
    assert "has a hole: " in errors
    assert "state.teardown()" in errors, "the calls that show it"
