"""The typed SDK of the credit service.

async with CreditClient("localhost:50051") as credits:
    receipt = await credits.add(user_id=7, app_id=1, credits=120, created_by=1)
"""

import credit_client.private_names  # noqa: F401 - before what relies on them

# isort: split
from credit_models import (
    Balance,
    CreditTransaction,
    ErrorReason,
    Purchase,
    Receipt,
    TransactionType,
    UserCredits,
)
from credit_models.constraints import Violation

from credit_client.batch import Batch, BatchOperation
from credit_client.client import CreditClient
from credit_client.errors import (
    AccessDenied,
    ActorNotAllowed,
    AppNotAllowed,
    AppTotalOverflow,
    BalanceOverflow,
    BatchAborted,
    ClientClosed,
    ClockSkewed,
    CreditError,
    CreditsLimitExceeded,
    DeadlineExceeded,
    IdempotencyKeyReused,
    InsufficientCredits,
    InternalError,
    InvalidField,
    Outcome,
    Overloaded,
    ProtocolMismatch,
    RateLimited,
    ScopeMissing,
    StoreUnavailable,
    TlsFailed,
    TokenUnavailable,
    TooManyApps,
    Unauthenticated,
    Unavailable,
    UnknownRefusal,
)
from credit_client.importing import ImportReport, ImportRow, RejectedRow
from credit_client.request import request_id
from credit_client.settings import ClientSettings, Streams

__all__ = [
    "AccessDenied",
    "ActorNotAllowed",
    "AppNotAllowed",
    "AppTotalOverflow",
    "Balance",
    "BalanceOverflow",
    "Batch",
    "BatchAborted",
    "BatchOperation",
    "ClientClosed",
    "ClientSettings",
    "ClockSkewed",
    "CreditClient",
    "CreditError",
    "CreditTransaction",
    "CreditsLimitExceeded",
    "DeadlineExceeded",
    "ErrorReason",
    "IdempotencyKeyReused",
    "ImportReport",
    "ImportRow",
    "InsufficientCredits",
    "InternalError",
    "InvalidField",
    "Outcome",
    "Overloaded",
    "ProtocolMismatch",
    "Purchase",
    "RateLimited",
    "Receipt",
    "RejectedRow",
    "ScopeMissing",
    "StoreUnavailable",
    "Streams",
    "TlsFailed",
    "TokenUnavailable",
    "TooManyApps",
    "TransactionType",
    "Unauthenticated",
    "Unavailable",
    "UnknownRefusal",
    "UserCredits",
    "Violation",
    "request_id",
]
