"""The messages of the credit service's contract, with a gRPC client stub and a server base class.

Messages are pydantic dataclasses: the constructor rejects a value that does not fit its field's
type.
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
