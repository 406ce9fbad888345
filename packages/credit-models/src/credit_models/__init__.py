"""The messages of the credit service's contract, with a gRPC client stub and a server base class.

Messages are pydantic dataclasses: the constructor rejects a value that does not fit its field's
type.
"""

from functools import wraps
from threading import Lock
from typing import Any

from pydantic.dataclasses import rebuild_dataclass

from credit_models._generated.credit import v1
from credit_models._generated.credit.v1 import (
    AdjustBalanceRequest,
    AdjustBalanceResponse,
    Allocation,
    AppId,
    AppPolicy,
    Balance,
    BatchWriteRequest,
    BatchWriteResponse,
    CaptureHoldRequest,
    CaptureHoldResponse,
    CreditRequest,
    CreditServiceBase,
    CreditServiceStub,
    CreditTransaction,
    Empty,
    ErrorReason,
    ExpiringCredits,
    ExtendHoldRequest,
    ExtendHoldResponse,
    ForecastStep,
    GetAppPolicyRequest,
    GetAppPolicyResponse,
    GetBalanceAtRequest,
    GetBalanceAtResponse,
    GetForecastRequest,
    GetForecastResponse,
    GetSpendingCapRequest,
    GetSpendingCapResponse,
    GetTransactionRequest,
    GetTransactionResponse,
    Grant,
    GrantCategory,
    GrantCreditsRequest,
    GrantCreditsResponse,
    HistoryServiceBase,
    HistoryServiceStub,
    Hold,
    HoldState,
    LedgerServiceBase,
    LedgerServiceStub,
    ListGrantsRequest,
    ListGrantsResponse,
    ListHoldsRequest,
    ListHoldsResponse,
    Operation,
    OperationFailure,
    OperationOutcome,
    PlaceHoldRequest,
    PlaceHoldResponse,
    Purchase,
    PurchaseRequest,
    QueryPurchasesRequest,
    QueryPurchasesResponse,
    QueryTransactionsRequest,
    QueryTransactionsResponse,
    Receipt,
    ReleaseHoldRequest,
    ReleaseHoldResponse,
    ReverseTransactionRequest,
    ReverseTransactionResponse,
    SetAppPolicyRequest,
    SetAppPolicyResponse,
    SetSpendingCapRequest,
    SetSpendingCapResponse,
    SpendingCaps,
    SpendingCapStatus,
    SpendingPeriod,
    SummarizeRequest,
    SummarizeResponse,
    Summary,
    SummaryGroup,
    TransactionType,
    TransferCreditsRequest,
    TransferCreditsResponse,
    UserCredits,
    UserId,
    VoidGrantRequest,
    VoidGrantResponse,
    WatchRequest,
    WatchResponse,
    WriteRequest,
    WriteResponse,
)

__all__ = [
    "AdjustBalanceRequest",
    "AdjustBalanceResponse",
    "Allocation",
    "AppId",
    "AppPolicy",
    "Balance",
    "BatchWriteRequest",
    "BatchWriteResponse",
    "CaptureHoldRequest",
    "CaptureHoldResponse",
    "CreditRequest",
    "CreditServiceBase",
    "CreditServiceStub",
    "CreditTransaction",
    "Empty",
    "ErrorReason",
    "ExpiringCredits",
    "ExtendHoldRequest",
    "ExtendHoldResponse",
    "ForecastStep",
    "GetAppPolicyRequest",
    "GetAppPolicyResponse",
    "GetBalanceAtRequest",
    "GetBalanceAtResponse",
    "GetForecastRequest",
    "GetForecastResponse",
    "GetSpendingCapRequest",
    "GetSpendingCapResponse",
    "GetTransactionRequest",
    "GetTransactionResponse",
    "Grant",
    "GrantCategory",
    "GrantCreditsRequest",
    "GrantCreditsResponse",
    "HistoryServiceBase",
    "HistoryServiceStub",
    "Hold",
    "HoldState",
    "LedgerServiceBase",
    "LedgerServiceStub",
    "ListGrantsRequest",
    "ListGrantsResponse",
    "ListHoldsRequest",
    "ListHoldsResponse",
    "Operation",
    "OperationFailure",
    "OperationOutcome",
    "PlaceHoldRequest",
    "PlaceHoldResponse",
    "Purchase",
    "PurchaseRequest",
    "QueryPurchasesRequest",
    "QueryPurchasesResponse",
    "QueryTransactionsRequest",
    "QueryTransactionsResponse",
    "Receipt",
    "ReleaseHoldRequest",
    "ReleaseHoldResponse",
    "ReverseTransactionRequest",
    "ReverseTransactionResponse",
    "SetAppPolicyRequest",
    "SetAppPolicyResponse",
    "SetSpendingCapRequest",
    "SetSpendingCapResponse",
    "SpendingCapStatus",
    "SpendingCaps",
    "SpendingPeriod",
    "SummarizeRequest",
    "SummarizeResponse",
    "Summary",
    "SummaryGroup",
    "TransactionType",
    "TransferCreditsRequest",
    "TransferCreditsResponse",
    "UserCredits",
    "UserId",
    "VoidGrantRequest",
    "VoidGrantResponse",
    "WatchRequest",
    "WatchResponse",
    "WriteRequest",
    "WriteResponse",
]

_building = Lock()


# Any: mypy rejects access to the `__init__` of a class that is a value.
def _build_at_first_use(message_type: Any) -> None:
    """Let the first construction of a message build the validator of its class.

    To build all of them at the import takes 0.07 s of CPU. A program constructs few of them: the
    codec reads messages without their constructors. pydantic's own deferral would use the names of
    the module that constructs the message: there `datetime` may be the class, and in the generated
    module it is the module.
    """

    @wraps(message_type.__init__)
    def construct(self: object, *args: object, **fields: object) -> None:
        with _building:
            # It replaces `__init__`, unless another thread has built the class before.
            rebuild_dataclass(message_type, _types_namespace=vars(v1))
        message_type.__init__(self, *args, **fields)

    message_type.__init__ = construct


for _name in __all__:
    if not getattr(getattr(v1, _name), "__pydantic_complete__", True):
        _build_at_first_use(getattr(v1, _name))
