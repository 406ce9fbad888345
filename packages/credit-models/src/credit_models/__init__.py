"""The messages of the credit service's contract, with a gRPC client stub and a server base class.

Messages are pydantic dataclasses: the constructor rejects a value that does not fit its field's
type.
"""

from credit_models._generated.credit.v1 import (
    AppId,
    Balance,
    BatchWriteRequest,
    BatchWriteResponse,
    CreditRequest,
    CreditServiceBase,
    CreditServiceStub,
    CreditTransaction,
    Empty,
    ErrorReason,
    LedgerServiceBase,
    LedgerServiceStub,
    Operation,
    OperationFailure,
    OperationOutcome,
    Purchase,
    PurchaseRequest,
    Receipt,
    TransactionType,
    UserCredits,
    UserId,
    WriteRequest,
    WriteResponse,
)

__all__ = [
    "AppId",
    "Balance",
    "BatchWriteRequest",
    "BatchWriteResponse",
    "CreditRequest",
    "CreditServiceBase",
    "CreditServiceStub",
    "CreditTransaction",
    "Empty",
    "ErrorReason",
    "LedgerServiceBase",
    "LedgerServiceStub",
    "Operation",
    "OperationFailure",
    "OperationOutcome",
    "Purchase",
    "PurchaseRequest",
    "Receipt",
    "TransactionType",
    "UserCredits",
    "UserId",
    "WriteRequest",
    "WriteResponse",
]
