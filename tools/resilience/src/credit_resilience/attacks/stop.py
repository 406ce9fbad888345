"""Send SIGTERM under load: no acknowledged write is lost, no call hangs, the exit status is 0."""

import asyncio
import signal
import tempfile
from pathlib import Path

from credit_client import ClientSettings, CreditClient, CreditError, Unavailable

from credit_resilience.attack import Attack, Outcome, Target
from credit_resilience.server import serving

_CALLERS = 64
_FIRST_USER_ID = 3_000_000_001
_APP_ID = 3
_ACKNOWLEDGED = 1_000
"""How many writes succeed before the signal is sent."""
_CHANNELS = 4
_GRACE_SECONDS = 30.0
"""Longer than the server's own grace period: a call that waits longer counts as hanging."""


class _Load:
    """Callers that write until the server is unavailable, and record their receipts."""

    def __init__(self, enough: int) -> None:
        self._enough = enough
        self.acknowledged: dict[int, list[str]] = {}
        self.count = 0
        self.errors: list[str] = []
        self.reached = asyncio.Event()

    async def write(self, client: CreditClient, user_id: int) -> None:
        receipts = self.acknowledged.setdefault(user_id, [])
        while True:
            try:
                receipt = await client.add(user_id=user_id, app_id=_APP_ID, credits=1, created_by=1)
            except Unavailable:
                return
            except CreditError as error:
                self.errors.append(type(error).__name__)
                return
            receipts.append(receipt.transaction_id)
            self.count += 1
            if self.count >= self._enough:
                self.reached.set()


async def _sigterm(target: Target) -> Outcome:
    """Stop the server during writes, then read the ledger through another server."""
    settings = ClientSettings(
        target=target.server.target,
        channels=_CHANNELS,
        retry_attempts_max=1,
        timeout_seconds=_GRACE_SECONDS,
    )
    load = _Load(target.count(_ACKNOWLEDGED))
    users = range(_FIRST_USER_ID, _FIRST_USER_ID + target.count(_CALLERS))
    async with CreditClient(settings=settings) as client:
        callers = [asyncio.create_task(load.write(client, user)) for user in users]
        async with asyncio.timeout(_GRACE_SECONDS):
            await load.reached.wait()
        status, (_, hanging) = await asyncio.gather(
            target.server.stop(signal.SIGTERM), asyncio.wait(callers, timeout=_GRACE_SECONDS)
        )
        for caller in hanging:
            caller.cancel()
    lost = await _lost(target, load.acknowledged)
    seen = f"exit {status}; {load.count} acknowledged, {lost} lost, {len(hanging)} hang"
    if load.errors:
        seen += f", {', '.join(sorted(set(load.errors)))}"
    return Outcome(seen=seen, held=not (status or lost or hanging or load.errors))


async def _lost(target: Target, acknowledged: dict[int, list[str]]) -> int:
    """Count the acknowledged writes that a new server does not return."""
    lost = 0
    with tempfile.TemporaryDirectory(prefix="credit-resilience-") as folder:
        async with (
            serving(
                target.server.uri,
                target.server.database,
                Path(folder),
                limits=target.limits,
            ) as server,
            CreditClient(server.target) as client,
        ):
            for user_id, receipts in acknowledged.items():
                kept = {entry.id async for entry in client.transactions(user_id=user_id)}
                lost += len(set(receipts) - kept)
    return lost


ATTACKS = (
    Attack(
        name="sigterm",
        required="exit 0; no acknowledged write lost, no caller left hanging",
        run=_sigterm,
        ends_server=True,
    ),
)
