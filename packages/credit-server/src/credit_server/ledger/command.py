"""The commands of the ledger."""

from dataclasses import dataclass

from credit_server.ledger.account import UINT32_MAX


@dataclass(frozen=True, kw_only=True, slots=True)
class Add:
    """Add credits to a user's balance in an app.

    Attributes:
        user_id: The user, 1 to 2**32 - 1, like the other ids.
        app_id: The app.
        credits: The number of credits, 1 to 2**32 - 1.
        created_by: The number of the requester.
        key: The client's idempotency key; empty if it sent none.
        transaction_id: The id of the transaction if the command is accepted. It is set on arrival
            and the same in every attempt, so it shows whether an attempt with an unknown result
            took effect.
        credits_max: The most credits that this caller may add in one call, 1 to 2**32 - 1. It is
            not part of the request: a retry succeeds although the limit was lowered meanwhile.
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

    Attributes are those of `Add` except `credits_max`, and:
        report_id: The report, as the app names it.
        report_name: Its name for people.
        purchase_id: The id of the purchase if the command is accepted.
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
