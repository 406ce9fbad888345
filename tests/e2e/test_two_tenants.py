"""Test two tenants' SDKs on one real server with TLS and tokens: each tries to use the other's."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from credit_client import (
    AccessDenied,
    ActorNotAllowed,
    AppNotAllowed,
    ClientSettings,
    CreditClient,
    RateLimited,
    ScopeMissing,
    Unauthenticated,
)
from credit_server.development.certificate import CertificateFiles, key_of, make_certificates
from credit_server.development.token import make_keys
from credit_testing.server import ServerProcess, running_server

from tests.e2e.tokens import EVERYTHING, token, token_options

USER = 7
_ONCE = ClientSettings(retry_attempts_max=1)


class Tenants:
    """A server and its callers."""

    def __init__(self, server: ServerProcess, made: CertificateFiles, key: Path) -> None:
        self.server = server
        self._made = made
        self._key = key

    def token(self, name: str, app: int, actor: int, scopes: list[str]) -> str:
        return token(self._key, name, app=app, actor=actor, scopes=scopes)

    def client(self, token: str | None) -> CreditClient:
        return CreditClient(self._target, tls=self._made.ca, token=token, settings=_ONCE)

    def client_with_certificate(self) -> CreditClient:
        certificate = self._made.client
        return CreditClient(
            self._target,
            tls=self._made.ca,
            client_certificate=certificate,
            client_key=key_of(certificate),
            settings=_ONCE,
        )

    @property
    def _target(self) -> str:
        return f"localhost:{self.server.port}"

    @property
    def audit(self) -> str:
        return (self.server.folder / "audit.json").read_text()


def _identities(folder: Path) -> Path:
    """Give the client's certificate the permissions of a tenant of app 3."""
    path = folder / "identities.json"
    entry = {"scopes": EVERYTHING, "apps": [3], "actor": 13}
    path.write_text(json.dumps({"CN=tenant-3": entry}))
    return path


@pytest.fixture
async def tenants(tmp_path: Path, store_options: list[str]) -> AsyncIterator[Tenants]:
    made = make_certificates(tmp_path / "certificates", client="tenant-3", days=1)
    private, public = make_keys(tmp_path / "keys")
    options = [
        *("--tls-certificate", str(made.server), "--tls-key", str(key_of(made.server))),
        *token_options(public),
        *("--tls-client-ca", str(made.ca), "--tls-client-auth", "optional"),
        *("--identities-file", str(_identities(tmp_path))),
        *("--failures-per-second", "0.8"),  # eight at once
        *("--audit-log", str(tmp_path / "audit.json")),
    ]
    async with running_server(tmp_path, *store_options, *options) as server:
        yield Tenants(server, made, private)


async def test_neither_tenant_can_spend_or_read_the_others_credits(tenants: Tenants) -> None:
    async with AsyncExitStack() as stack:
        tokens = [tenants.token(f"tenant-{app}", app, 10 + app, EVERYTHING) for app in (1, 2)]
        one, two = [await stack.enter_async_context(tenants.client(token)) for token in tokens]
        for app, client in ((1, one), (2, two)):
            await client.add(
                user_id=USER, app_id=app, credits=100 * app, created_by=10 + app,
                idempotency_key=f"grant-{app}",
            )  # fmt: skip
            await client.use(
                user_id=USER, app_id=app, report_id=f"r-{app}", report_name="Traffic", credits=5,
                created_by=10 + app,
            )  # fmt: skip
        for own, other, client in ((1, 2, one), (2, 1, two)):
            me = 10 + own
            with pytest.raises(AppNotAllowed) as refused:
                await client.add(user_id=USER, app_id=other, credits=1, created_by=me)
            assert refused.value.app_id == other
            with pytest.raises(AppNotAllowed):
                await client.use(
                    user_id=USER, app_id=other, report_id="x", report_name="x", credits=1,
                    created_by=me,
                )  # fmt: skip
            for user in (None, USER):
                with pytest.raises(AppNotAllowed):
                    await client.balance(app_id=other, user_id=user)
            with pytest.raises(ActorNotAllowed):
                await client.add(user_id=USER, app_id=own, credits=1, created_by=10 + other)
            # A key that the other tenant has used is free.
            receipt = await client.add(
                user_id=USER, app_id=own, credits=9, created_by=me,
                idempotency_key=f"grant-{other}",
            )  # fmt: skip
            assert not receipt.replayed
            assert receipt.balance == 100 * own + 4
            seen = await client.user_credits(user_id=USER)
            assert [(each.app_id, each.balance) for each in seen.balances] == [(own, 100 * own + 4)]
            assert seen.updated_by == 0
            assert {each.app_id async for each in client.purchases(user_id=USER)} == {own}
            assert [each.app_id async for each in client.transactions(user_id=USER)] == [own] * 3
            assert await client.balance(app_id=own) == 100 * own + 4


async def test_a_tenant_can_make_only_the_calls_of_its_scopes(tenants: Tenants) -> None:
    async with tenants.client(tenants.token("reader", 1, 11, ["credits:read"])) as reader:
        assert await reader.balance(app_id=1, user_id=USER) == 0
        with pytest.raises(ScopeMissing) as refused:
            await reader.add(user_id=USER, app_id=1, credits=1, created_by=11)
        assert refused.value.scope == "credits:issue"


@pytest.mark.parametrize("token", [None, "forged.token.here"])
async def test_a_caller_without_an_identity_gets_no_data(
    tenants: Tenants, token: str | None
) -> None:
    async with tenants.client(token) as stranger:
        with pytest.raises(Unauthenticated):
            await stranger.balance(app_id=1)
        with pytest.raises(AccessDenied):
            await stranger.add(user_id=USER, app_id=1, credits=1, created_by=1)
    if token is not None:
        assert token not in tenants.server.stderr.read_text()


async def test_a_client_certificate_is_an_identity_like_a_token(tenants: Tenants) -> None:
    async with tenants.client_with_certificate() as three:
        receipt = await three.add(user_id=USER, app_id=3, credits=30, created_by=13)
        assert receipt.balance == 30
        with pytest.raises(AppNotAllowed):
            await three.balance(app_id=1)
        with pytest.raises(ActorNotAllowed):
            await three.add(user_id=USER, app_id=3, credits=1, created_by=11)
    assert '"identity": "CN=tenant-3"' in tenants.audit


async def test_unauthenticated_calls_from_the_same_address_do_not_block_a_tenant(
    tenants: Tenants,
) -> None:
    mine = tenants.token("tenant-1", 1, 11, EVERYTHING)
    async with (
        tenants.client(mine) as one,
        tenants.client_with_certificate() as three,
        tenants.client("forged.token.here") as stranger,
    ):
        await one.add(user_id=USER, app_id=1, credits=5, created_by=11)
        for _ in range(8):
            with pytest.raises(Unauthenticated):
                await stranger.balance(app_id=1)
        limited = 0
        while limited < 20:  # on a slow machine the budget refills in between
            with pytest.raises((RateLimited, Unauthenticated)) as rejected:
                await stranger.balance(app_id=1)
            limited += rejected.type is RateLimited
        assert await one.balance(app_id=1) == 5
        assert await three.balance(app_id=3) == 0
    assert "forged" not in tenants.audit
    assert mine not in tenants.audit + tenants.server.stderr.read_text()
