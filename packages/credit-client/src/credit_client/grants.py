"""The writes of grants: credits that have an end, a start, a priority or a category."""

from datetime import datetime, timedelta
from typing import Unpack

from credit_models import GrantCategory

from credit_client.methods import GRANT, TRANSFER, VOID_GRANT
from credit_client.request import Values
from credit_client.writes import ResultT, WriteOptions, Writes


class GrantWrites(Writes[ResultT]):
    """Grants, takes back and moves credits."""

    def grant(
        self,
        *,
        user_id: int | str,
        app_id: int,
        credits: int,  # noqa: A002 - the contract's word
        created_by: int,
        expires_at: datetime | None = None,
        expires_after: timedelta | None = None,
        effective_at: datetime | None = None,
        priority: int | None = None,
        category: GrantCategory = GrantCategory.UNSPECIFIED,
        **options: Unpack[WriteOptions],
    ) -> ResultT:
        """Add credits that have an end, a start, a priority or a category.

        Credits of the lowest priority are spent first, among these the credits that end first, and
        among these the oldest. Credits without an end come last in their priority.

        Args:
            user_id: The user who receives the credits.
            app_id: The app.
            credits: The number of credits.
            created_by: The identity of the acting person or service.
            expires_at: When what is left of the credits expires. Not with `expires_after`. If both
                are None, the credits never expire.
            expires_after: The time from the start to the end, at least a second.
            effective_at: When the credits can be spent for the first time; None: at once.
            priority: 0 to 1000. The lowest is spent first. None: 500, as for credits of `add`.
            category: Where the credits come from.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `transaction_id` is the grant's id.

        Raises:
            ExpiresTooEarly: The grant would end before it starts.
            CreditsLimitExceeded: The operator allows fewer credits in one call.
            GrantsFull: The user has as many live grants in the app as one user may.
            AccountFull: The user has as many grants and holds in all apps as one user may.
            BalanceOverflow: The balance would pass 4294967295.
            TooManyApps: The user has credits in as many apps as one user may.
        """
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "credits": credits,
            "created_by": created_by,
            "expires_at": expires_at,
            "expires_after": expires_after,
            "effective_at": effective_at,
            "priority": priority,
            "category": category,
        }
        return self._write(GRANT, values, options)

    def void_grant(
        self,
        *,
        user_id: int | str,
        app_id: int,
        grant_id: str,
        created_by: int,
        **options: Unpack[WriteOptions],
    ) -> ResultT:
        """Take back what is left of one grant. Credits that are held stay held.

        Args:
            user_id: The user who has the grant.
            app_id: The app.
            grant_id: The `transaction_id` of the receipt of `grant`, or `Grant.id`.
            created_by: The identity of the acting person or service.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `credits` are the credits that were taken back.

        Raises:
            GrantNotFound: The user never had a grant with this id in the app.
            GrantEmpty: Nothing is left of the grant.
        """
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "grant_id": grant_id,
            "created_by": created_by,
        }
        return self._write(VOID_GRANT, values, options)

    def transfer(
        self,
        *,
        user_id: int | str,
        app_id: int,
        credits: int,  # noqa: A002 - the contract's word
        created_by: int,
        to_user_id: int | str | None = None,
        to_app_id: int | None = None,
        **options: Unpack[WriteOptions],
    ) -> ResultT:
        """Move credits to another user, another app, or both. Both sides take effect or neither.

        The credits keep their priority, their end and their category.

        Args:
            user_id: The user who gives.
            app_id: The app from which the credits come.
            credits: The number of credits.
            created_by: The identity of the acting person or service.
            to_user_id: The user who receives the credits; None for the same user.
            to_app_id: The app in which the credits are received; None for the same app.
            options: See `WriteOptions`.

        Returns:
            The receipt of the user and the app that gave the credits.

        Raises:
            InsufficientCredits: The balance is too low.
            BalanceOverflow: The receiver's balance would pass 4294967295.
            TooManyApps: The receiver has credits in as many apps as one user may.
            GrantsFull: The receiver has as many live grants in the app as one user may.
            AccountFull: The receiver has as many grants and holds in all apps as one user may.
        """
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "credits": credits,
            "created_by": created_by,
            "to_user_id": to_user_id,
            "to_app_id": to_app_id,
        }
        return self._write(TRANSFER, values, options)
