"""What clients ask the ledger to do."""

from dataclasses import dataclass

from credit_server.ledger.account import UINT32_MAX


@dataclass(frozen=True, kw_only=True, slots=True)
class Add:
    """Add credits to a user's balance in an app.

    Attributes:
        user_id: Who gets the credits, 1 to 2**32 - 1; so are the other ids.
        app_id: In which app.
        credits: How many, 1 to 2**32 - 1.
        created_by: Who asks for it.
        key: The client's idempotency key; empty when it sent none.
        transaction_id: The id that the transaction gets if the command is accepted. It is given
            on arrival and kept over every attempt, so that it also tells whether an attempt with
            an unknown result took effect.
        credits_max: The most credits that this caller may add in one call, 1 to 2**32 - 1. The
            request does not hold it: a retry succeeds although the limit was lowered meanwhile.
    """

    user_id: int
    app_id: int
    credits: int
    created_by: int
    key: str
    transaction_id: str
    credits_max: int = UINT32_MAX


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """Buy a report with a user's credits in an app.

    Attributes are those of `Add` but `credits_max`, and:
        report_id: The report, as the app names it.
        report_name: Its name for people.
        purchase_id: The id that the purchase gets if the command is accepted.
    """

    user_id: int
    app_id: int
    report_id: str
    report_name: str
    credits: int
    created_by: int
    key: str
    transaction_id: str
    purchase_id: str


Command = Add | Use
