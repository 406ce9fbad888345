"""The writes of holds: credits that are reserved for a purchase."""

from datetime import timedelta
from typing import Unpack

from credit_client.methods import CAPTURE_HOLD, EXTEND_HOLD, PLACE_HOLD, RELEASE_HOLD
from credit_client.request import Values
from credit_client.writes import ResultT, WriteOptions, Writes


class HoldWrites(Writes[ResultT]):
    """Places, captures, releases and extends holds."""

    def place_hold(
        self,
        *,
        user_id: int | str,
        app_id: int,
        credits: int,  # noqa: A002 - the contract's word
        created_by: int,
        expires_after: timedelta | None = None,
        purpose: str = "",
        allow_partial: bool = False,
        **options: Unpack[WriteOptions],
    ) -> ResultT:
        """Reserve credits for a purchase whose price is not known yet.

        `CreditClient.hold` also releases what is not used. Held credits are not in the balance.

        Args:
            user_id: The user whose credits are reserved.
            app_id: The app.
            credits: The number of credits.
            created_by: The identity of the acting person or service.
            expires_after: The time until the hold ends, and what it still holds is free again:
                1 second to 7 days; None for 15 minutes.
            purpose: What the credits are reserved for, for people to read: up to 256 characters.
            allow_partial: Whether to reserve the whole balance if it is lower than `credits`.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `transaction_id` is the hold's id, and `held` are the credits that the
            hold holds.

        Raises:
            InsufficientCredits: The balance is too low. With `allow_partial`: the balance is 0.
            CapExceeded: A spending cap would be exceeded.
            HoldsFull: The user has as many open holds in the app as one user may.
            AccountFull: The user has as many grants and holds in all apps as one user may.
        """
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "credits": credits,
            "created_by": created_by,
            "expires_after": expires_after,
            "purpose": purpose,
            "allow_partial": allow_partial,
        }
        return self._write(PLACE_HOLD, values, options)

    def capture_hold(
        self,
        *,
        user_id: int | str,
        app_id: int,
        hold_id: str,
        report_id: str,
        report_name: str,
        created_by: int,
        credits: int | None = None,  # noqa: A002 - the contract's word
        final: bool = True,
        allow_excess: bool = False,
        **options: Unpack[WriteOptions],
    ) -> ResultT:
        """Buy a report with reserved credits, and record the purchase as `use` does.

        Args:
            user_id: The user who buys.
            app_id: The app.
            hold_id: The `transaction_id` of the receipt of `place_hold`, or `Hold.id`.
            report_id: The report's id in the app: 1 to 128 characters.
            report_name: The report's name for people to read: 1 to 256 characters.
            created_by: The identity of the acting person or service.
            credits: The price; None for all that the hold still holds.
            final: Whether to release what is left. If False, the hold stays open for more captures.
            allow_excess: Whether the balance pays the part of the price that exceeds the hold.
            options: See `WriteOptions`.

        Returns:
            The receipt. `held` are the credits that the hold still holds, and `released_credits`
            those that were released.

        Raises:
            HoldNotFound: The user never had a hold with this id in the app.
            HoldAlreadyCaptured: A capture has settled the hold.
            HoldAlreadyReleased: The hold was released.
            HoldExpired: The hold has ended. Call `use` with a new key instead.
            HoldExceeded: The price is above what the hold still holds.
            CapExceeded: With `allow_excess`, a spending cap would be exceeded.
            InsufficientCredits: With `allow_excess`, the balance is too low.
        """
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "hold_id": hold_id,
            "report_id": report_id,
            "report_name": report_name,
            "created_by": created_by,
            "credits": credits,
            "final": final,
            "allow_excess": allow_excess,
        }
        return self._write(CAPTURE_HOLD, values, options)

    def release_hold(
        self,
        *,
        user_id: int | str,
        app_id: int,
        hold_id: str,
        created_by: int,
        **options: Unpack[WriteOptions],
    ) -> ResultT:
        """Release what a hold still holds, and settle the hold.

        Args:
            user_id: The user whose credits were reserved.
            app_id: The app.
            hold_id: As for `capture_hold`.
            created_by: The identity of the acting person or service.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `released_credits` are the released credits.

        Raises:
            HoldNotFound: The user never had a hold with this id in the app.
            HoldSettled: The hold is no longer open.
        """
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "hold_id": hold_id,
            "created_by": created_by,
        }
        return self._write(RELEASE_HOLD, values, options)

    def extend_hold(
        self,
        *,
        user_id: int | str,
        app_id: int,
        hold_id: str,
        expires_after: timedelta,
        created_by: int,
        **options: Unpack[WriteOptions],
    ) -> ResultT:
        """Set a new end of a hold.

        Args:
            user_id: The user whose credits were reserved.
            app_id: The app.
            hold_id: As for `capture_hold`.
            expires_after: The time from now to the new end: at least a second. The new end may be
                earlier than the old one. A hold ends at most 7 days after it was placed.
            created_by: The identity of the acting person or service.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `expires_at` is the new end.

        Raises:
            HoldNotFound: The user never had a hold with this id in the app.
            HoldSettled: The hold is no longer open.
            HoldLifeExceeded: The hold would end more than 7 days after it was placed.
        """
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "hold_id": hold_id,
            "expires_after": expires_after,
            "created_by": created_by,
        }
        return self._write(EXTEND_HOLD, values, options)
