"""An open hold: reserved credits that are captured, or released at the end of a block."""

import logging
from collections.abc import Coroutine, Generator
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Never, Self, TypeAlias, Unpack

from credit_models import Receipt

from credit_client.async_only import AsyncOnly
from credit_client.errors import CreditError, HoldSettled
from credit_client.holds import HoldWrites
from credit_client.writes import WriteOptions

_log = logging.getLogger(__name__)

# How long the end of a block waits for the release. The credits are released when the hold ends
# anyway.
RELEASE_SECONDS = 5.0

AwaitedReceipt: TypeAlias = Coroutine[Any, Any, Receipt]


class HoldHandle(AsyncOnly):
    """A hold and its id. `CreditClient.hold` places one, `CreditClient.hold_of` takes an id.

    In an `async with` block, the end releases what was not captured; it does so also if the block
    raises. If the release fails, a line of the log names the failure, and the hold's own end frees
    the credits.

    Attributes:
        id: The hold's id, which another process may pass to `CreditClient.hold_of`.
        user_id: The user whose credits are reserved.
        app_id: The app.
        receipt: The receipt of the latest write of this handle, which placed, captured, released or
            extended the hold; None before the first.
        expires_at: When the hold ends; None: this handle has neither placed nor extended it.
    """

    def __init__(
        self,
        writes: HoldWrites[AwaitedReceipt],
        *,
        hold_id: str,
        user_id: int | str,
        app_id: int,
        created_by: int,
        release_seconds: float,
        placed: Receipt | None = None,
    ) -> None:
        """Make a handle; see `CreditClient.hold_of`.

        Args:
            writes: The client.
            hold_id: The hold's id.
            user_id: The user.
            app_id: The app.
            created_by: The identity for all writes of the handle.
            release_seconds: How long the end of a block waits for the release.
            placed: The receipt that placed the hold, if that has just happened.
        """
        self.id = hold_id
        self.user_id = user_id
        self.app_id = app_id
        self.receipt = placed
        self.expires_at = None if placed is None else placed.expires_at
        self._writes = writes
        self._created_by = created_by
        self._release_seconds = release_seconds

    @property
    def held(self) -> int | None:
        """The credits that the hold held after the latest write; None before the first."""
        return None if self.receipt is None else self.receipt.held

    async def capture(
        self,
        credits: int | None = None,  # noqa: A002 - the contract's word
        *,
        report_id: str,
        report_name: str,
        final: bool = True,
        allow_excess: bool = False,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Buy a report with the reserved credits; see `CreditClient.capture_hold`.

        Args:
            credits: The price; None for all that the hold still holds.
            report_id: The report's id in the app: 1 to 128 characters.
            report_name: The report's name for people to read: 1 to 256 characters.
            final: Whether to release what is left. If False, the hold stays open for more captures.
            allow_excess: Whether the balance pays the part of the price that exceeds the hold.
            options: See `WriteOptions`.

        Raises:
            HoldSettled: The hold was captured or released, or has ended (`HoldExpired`).
            HoldExceeded: The price is above what the hold still holds.
            CreditError: As `CreditClient.capture_hold` raises.
        """
        return self._note(
            await self._writes.capture_hold(
                user_id=self.user_id,
                app_id=self.app_id,
                hold_id=self.id,
                report_id=report_id,
                report_name=report_name,
                created_by=self._created_by,
                credits=credits,
                final=final,
                allow_excess=allow_excess,
                **options,
            )
        )

    async def release(self, **options: Unpack[WriteOptions]) -> Receipt:
        """Release what the hold still holds; see `CreditClient.release_hold`."""
        return self._note(
            await self._writes.release_hold(
                user_id=self.user_id,
                app_id=self.app_id,
                hold_id=self.id,
                created_by=self._created_by,
                **options,
            )
        )

    async def extend(self, expires_after: timedelta, **options: Unpack[WriteOptions]) -> Receipt:
        """Set a new end, counted from now; see `CreditClient.extend_hold`."""
        return self._note(
            await self._writes.extend_hold(
                user_id=self.user_id,
                app_id=self.app_id,
                hold_id=self.id,
                expires_after=expires_after,
                created_by=self._created_by,
                **options,
            )
        )

    async def __aenter__(self) -> Self:
        """Begin the block whose end releases what was not captured."""
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release what was not captured. An exception of the block is raised unchanged."""
        if self.held == 0 or (self.receipt is not None and self.receipt.validated):
            return
        try:
            await self.release(timeout_seconds=self._release_seconds)
        except HoldSettled as settled:
            _log.debug("hold %s needs no release: %s", self.id, settled)
        except CreditError as failure:
            _log.warning("hold %s was not released, and ends by itself: %s", self.id, failure)

    def _note(self, receipt: Receipt) -> Receipt:
        if not receipt.validated:
            self.receipt = receipt
            self.expires_at = receipt.expires_at or self.expires_at
        return receipt


class PendingHold(AsyncOnly):
    """A hold that is placed by `await` or by `async with`; see `CreditClient.hold`."""

    def __init__(self, placing: Coroutine[Any, Any, HoldHandle]) -> None:
        """Take what places the hold."""
        self._placing = placing
        self._handle: HoldHandle | None = None

    def __await__(self) -> Generator[Any, Any, HoldHandle]:
        """Place the hold."""
        return self._placing.__await__()

    async def __aenter__(self) -> HoldHandle:
        """Place the hold."""
        self._handle = await self._placing
        return self._handle

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release what was not captured; see `HoldHandle`."""
        if self._handle is not None:
            await self._handle.__aexit__(error_type, error, traceback)

    if not TYPE_CHECKING:

        def __enter__(self) -> Never:
            """Reject `with`; see `AsyncOnly`."""
            self._placing.close()  # Otherwise Python warns that it was never awaited.
            super().__enter__()
