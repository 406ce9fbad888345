"""The streams of the fake: transactions since a position, and new ones as they are written."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace

from credit_models import CreditTransaction, UserCredits, WatchRequest
from credit_models import WatchResponse as WatchEvent
from credit_models.constraints import Violation
from credit_models.timeouts import Timeout
from credit_models.translation.refusals import resume_token_invalid

from credit_client.testing.ledger import FakeLedger, Refused

# The interval of events with only a token that the contract defines.
_PROGRESS_SECONDS = 15

_TOKEN_VIOLATION = Violation(
    field="resume_token", description="must be a token for this user and this app"
)


async def events_of(request: WatchRequest, ledger: FakeLedger) -> AsyncGenerator[WatchEvent, None]:
    """Yield the events of a stream. Positions count the writes of all users.

    Raises:
        Refused: The resume token was made for another request.
    """
    loop, written = asyncio.get_running_loop(), asyncio.Event()
    scope = f"{request.user_id or 0}.{request.app_id or 0}"
    # Tests may write in other threads.
    with ledger.on_write(notify=lambda: loop.call_soon_threadsafe(written.set)):
        all_written = len(ledger.written(after=0))
        place = all_written
        if request.resume_token:
            place = _place_of(request.resume_token, scope, all_written)
        else:
            yield WatchEvent(resume_token=f"{scope}.{place}", snapshot=_snapshot(request, ledger))
        silent = bool(request.resume_token)
        while True:
            for transaction in ledger.written(after=place):
                place += 1
                if _is_wanted(request, transaction):
                    silent = False
                    yield WatchEvent(resume_token=f"{scope}.{place}", transaction=transaction)
            if silent:
                yield WatchEvent(resume_token=f"{scope}.{place}")
            if request.end_when_current:
                return
            silent = True
            with suppress(TimeoutError):
                async with Timeout(request.progress_seconds or _PROGRESS_SECONDS):
                    await written.wait()
                    silent = False
            written.clear()


def _snapshot(request: WatchRequest, ledger: FakeLedger) -> UserCredits | None:
    """Return the balances of the user; None for an app."""
    if request.user_id is None:
        return None
    account = ledger.user_credits(user_id=request.user_id)
    apps = (request.app_id, None)
    balances = [each for each in account.balances if each.app_id in apps or apps[0] is None]
    return replace(account, balances=balances)


def _is_wanted(request: WatchRequest, transaction: CreditTransaction) -> bool:
    return request.user_id in (None, transaction.user_id) and request.app_id in (
        None,
        transaction.app_id,
    )


def _place_of(token: str, scope: str, place_max: int) -> int:
    """Return the position in a token.

    Raises:
        Refused: The token was made for another request.
    """
    found, _, place = token.rpartition(".")
    if found != scope or not place.isdecimal() or int(place) > place_max:
        raise Refused(*resume_token_invalid(), violations=[_TOKEN_VIOLATION])
    return int(place)
