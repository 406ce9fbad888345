"""The writes that correct or limit: refunds and other reversals, adjustments, spending caps."""

from datetime import datetime
from typing import Unpack

from credit_models import CreditTransaction, Purchase, Receipt, TransactionType

from credit_client.methods import ADJUST, REVERSE, SET_SPENDING_CAP
from credit_client.request import Values
from credit_client.writes import NotedOptions, ResultT, WriteOptions, Writes


class CorrectionWrites(Writes[ResultT]):
    """Reverses transactions, corrects balances and limits what is spent."""

    def refund(
        self,
        bought: Receipt | CreditTransaction | Purchase,
        *,
        created_by: int,
        user_id: int | str | None = None,
        app_id: int | None = None,
        credits: int | None = None,  # noqa: A002 - the contract's word
        restore_until: datetime | None = None,
        **options: Unpack[WriteOptions],
    ) -> ResultT:
        """Return credits of a purchase to the grants that paid for it.

        All refunds of a purchase together never exceed its price.

        Args:
            bought: The purchase, the transaction that paid for it, or the receipt of `use` or of a
                capture. With the id alone, call `reverse`.
            created_by: The identity of the acting person or service.
            user_id: The user who bought; required with a receipt, which does not name the user.
            app_id: The app; required with a receipt.
            credits: The number of credits; None for all that were not refunded yet.
            restore_until: Until when credits of grants that have ended since can be spent; None:
                they expire at once.
            options: See `WriteOptions`.

        Raises:
            ValueError: `bought` is not a purchase, or it is a receipt and the user or the app is
                missing.
            TransactionNotFound: The user has no such purchase in the app.
            ReversalExceeds: Less of the price can still be refunded, or nothing.
            GrantsFull: A grant cannot be restored: the user has as many as one user may.
            AccountFull: A grant cannot be restored, because of the grants and holds in all apps.
            BalanceOverflow: The balance would pass 4294967295.
        """
        if not isinstance(bought, Receipt):
            user_id, app_id = user_id or bought.user_id, app_id or bought.app_id
        if user_id is None or app_id is None:
            raise ValueError(
                "a receipt does not name its user and its app: pass user_id and app_id"
            )
        return self.reverse(
            transaction_id=_paid_by(bought),
            user_id=user_id,
            app_id=app_id,
            created_by=created_by,
            credits=credits,
            restore_until=restore_until,
            **options,
        )

    def reverse(
        self,
        *,
        user_id: int | str,
        app_id: int,
        transaction_id: str,
        created_by: int,
        credits: int | None = None,  # noqa: A002 - the contract's word
        restore_until: datetime | None = None,
        **options: Unpack[WriteOptions],
    ) -> ResultT:
        """Undo a transaction in whole or in part: refund a use, or take back added credits.

        Args:
            user_id: The user of the transaction.
            app_id: The app of the transaction.
            transaction_id: The transaction. A USE is refunded; the credits of an ADD, GRANT or
                TRANSFER_IN are taken back from what is left of them.
            created_by: The identity of the acting person or service.
            credits: The number of credits; None for all that can be reversed.
            restore_until: As for `refund`.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `credits` are the reversed credits.

        Raises:
            TransactionNotFound: The user has no such transaction in the app.
            NotReversible: The transaction has another type.
            ReversalExceeds: Less of the transaction can still be reversed, or nothing.
            InsufficientCredits: Less is left of the added credits than would be taken back.
            GrantsFull: A grant cannot be restored: the user has as many as one user may.
            AccountFull: A grant cannot be restored, because of the grants and holds in all apps.
            BalanceOverflow: The balance would pass 4294967295.
        """
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "transaction_id": transaction_id,
            "created_by": created_by,
            "credits": credits,
            "restore_until": restore_until,
        }
        return self._write(REVERSE, values, options)

    def adjust(
        self,
        *,
        user_id: int | str,
        app_id: int,
        delta: int,
        note: str,
        created_by: int,
        **options: Unpack[NotedOptions],
    ) -> ResultT:
        """Correct a balance, where no other call can. This call is meant for operators.

        Args:
            user_id: The user.
            app_id: The app.
            delta: The change, -4294967295 to 4294967295, not 0. A negative change takes credits in
                the order in which they are spent.
            note: The reason, for people to read: 1 to 500 characters.
            created_by: The identity of the acting person or service.
            options: See `NotedOptions`.

        Raises:
            CreditsLimitExceeded: The operator allows fewer credits in one call.
            InsufficientCredits: The balance would be below 0, and the app's policy does not allow
                that.
            BalanceOverflow: The balance would pass 4294967295.
            TooManyApps: The user has credits in as many apps as one user may.
        """
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "delta": delta,
            "note": note,
            "created_by": created_by,
        }
        return self._write(ADJUST, values, options)

    def set_spending_cap(
        self,
        *,
        user_id: int | str,
        app_id: int,
        created_by: int,
        per_hour: int | None = None,
        per_day: int | None = None,
        per_month: int | None = None,
        **options: Unpack[WriteOptions],
    ) -> ResultT:
        """Set a user's own spending caps in an app. They replace those of the app.

        `CreditClient.set_app_spending_cap` sets the caps of the app. The periods are in UTC.

        Args:
            user_id: The user.
            app_id: The app.
            created_by: The identity of the acting person or service.
            per_hour: The credits that can be spent in an hour; None for no cap.
            per_day: The credits that can be spent in a day; None for no cap.
            per_month: The credits that can be spent in a calendar month; None for no cap. If all
                three are None, the user's caps are removed, and those of the app apply again.
            options: See `WriteOptions`.

        Raises:
            TooManyApps: The user has credits in as many apps as one user may.
        """
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "created_by": created_by,
            "caps": {"per_hour": per_hour, "per_day": per_day, "per_month": per_month},
        }
        return self._write(SET_SPENDING_CAP, values, options)


def _paid_by(bought: Receipt | CreditTransaction | Purchase) -> str:
    """Return the id of the transaction that paid for a purchase.

    Raises:
        TypeError: It is none of these messages.
        ValueError: It belongs to no purchase.
    """
    match bought:
        case Purchase():
            return bought.transaction_id
        case Receipt(purchase_id=purchase_id, transaction_id=found) if purchase_id:
            return found
        case CreditTransaction(type=TransactionType.USE, id=found):
            return found
        case Receipt() | CreditTransaction():
            raise ValueError("this is not a purchase: `reverse` takes back credits that were added")
        case _:
            kind = type(bought).__name__
            raise TypeError(f"refund takes a purchase, a transaction or a receipt, not {kind}")
