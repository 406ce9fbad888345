"""The messages of the credit service's contract, and the client and server made from it.

Messages are pydantic dataclasses: a value that its type cannot take is refused where it is made.
"""

from credit_models._generated.credit.v1 import (
    AppId,
    Balance,
    CreditRequest,
    CreditServiceBase,
    CreditServiceStub,
    CreditTransaction,
    Empty,
    ErrorReason,
    Purchase,
    PurchaseRequest,
    Receipt,
    TransactionType,
    UserCredits,
    UserId,
)

__all__ = [
    "AppId",
    "Balance",
    "CreditRequest",
    "CreditServiceBase",
    "CreditServiceStub",
    "CreditTransaction",
    "Empty",
    "ErrorReason",
    "Purchase",
    "PurchaseRequest",
    "Receipt",
    "TransactionType",
    "UserCredits",
    "UserId",
]
