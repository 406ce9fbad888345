"""Test that the order of events and the passing of time explain every answer of both services."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from credit_server.store.memory import MemoryStore
from credit_server.store.port import Store
from credit_testing.http2_client import Connection
from structlog.testing import capture_logs

from tests.fuzz.accounts_machine import Loop, explore
from tests.server.clocks import Clocks
from tests.server.serving import LIMITS as SERVING_LIMITS
from tests.server.serving import serving

CLIENTS = 3
# Names and metadata of the greatest lengths.
LIMITS = replace(SERVING_LIMITS, message_bytes_max=2**20)
EXAMPLES = 40


@contextmanager
def _loop(store: Store) -> Iterator[Loop]:
    """Serve a store in this process, by a clock that the machine moves."""
    clocks = Clocks()
    stack = AsyncExitStack()

    async def serve() -> list[Connection]:
        served = await stack.enter_async_context(
            serving(store, clock=clocks.clock(), call_limits=LIMITS)
        )
        return [
            await stack.enter_async_context(Connection.connect(served.port)) for _ in range(CLIENTS)
        ]

    async def pause(milliseconds: int) -> None:
        clocks.advance(milliseconds / 1000)

    def now() -> datetime:
        return datetime.fromtimestamp(clocks.wall, UTC)

    # With a factory, the runner leaves the current event loop of this thread alone.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner, capture_logs():
        try:
            yield Loop(runner, runner.run(serve()), now, pause)
        finally:
            runner.run(stack.aclose())


# A workload in which a kind of answer is missing would prove little about it.
EVERY_KIND = {
    *("ADD or USE", "GRANT", "SCHEDULE", "VOID", "HOLD", "USE", "RELEASE", "EXTEND", "REFUND"),
    *("REVOKE", "TRANSFER_OUT", "ADJUST", "CAP", "replayed", "validated", "unknown"),
    *("IDEMPOTENCY_KEY_REUSED", "EXPIRES_TOO_EARLY", "REVISION_CHANGED", "AVAILABLE_TOO_LOW"),
    *("GRANT_NOT_FOUND", "GRANT_EMPTY", "HOLD_NOT_FOUND", "TRANSACTION_NOT_FOUND"),
    *("HOLD_ALREADY_CAPTURED", "HOLD_ALREADY_RELEASED", "HOLD_EXPIRED", "HOLD_EXCEEDED"),
    *("NOT_REVERSIBLE", "REVERSAL_EXCEEDS", "CAP_EXCEEDED", "INSUFFICIENT_CREDITS"),
    *("BALANCE_OVERFLOW", "ALREADY_PURCHASED", "BATCH_ABORTED"),
}


def test_every_answer_is_one_of_the_allowed(seed: int) -> None:
    with _loop(MemoryStore()) as loop:
        met = explore(loop, seed=seed, examples=EXAMPLES)
    assert met.keys() <= EVERY_KIND | {"HOLD_LIFE_EXCEEDED"}
    assert met["USE"] > 0 < met["REFUND"]
