"""The calls of the contract, each with its path and its messages."""

from typing import TypeAlias, TypeVar

from credit_models import (
    AdjustBalanceRequest,
    AdjustBalanceResponse,
    AppId,
    Balance,
    BatchWriteRequest,
    BatchWriteResponse,
    CaptureHoldRequest,
    CaptureHoldResponse,
    CreditRequest,
    CreditTransaction,
    Empty,
    ExtendHoldRequest,
    ExtendHoldResponse,
    FindUserRequest,
    FindUserResponse,
    GetAppPolicyRequest,
    GetAppPolicyResponse,
    GetBalanceAtRequest,
    GetBalanceAtResponse,
    GetCheckpointRequest,
    GetCheckpointResponse,
    GetForecastRequest,
    GetForecastResponse,
    GetSpendingCapRequest,
    GetSpendingCapResponse,
    GetTransactionRequest,
    GetTransactionResponse,
    GrantCreditsRequest,
    GrantCreditsResponse,
    ListAlertEventsRequest,
    ListAlertEventsResponse,
    ListAlertsRequest,
    ListAlertsResponse,
    ListCheckpointsRequest,
    ListCheckpointsResponse,
    ListDeadLettersRequest,
    ListDeadLettersResponse,
    ListGrantsRequest,
    ListGrantsResponse,
    ListHoldsRequest,
    ListHoldsResponse,
    ListWebhooksRequest,
    ListWebhooksResponse,
    PlaceHoldRequest,
    PlaceHoldResponse,
    Purchase,
    PurchaseRequest,
    QueryPurchasesRequest,
    QueryPurchasesResponse,
    QueryTransactionsRequest,
    QueryTransactionsResponse,
    ReleaseHoldRequest,
    ReleaseHoldResponse,
    RemoveAlertRequest,
    RemoveAlertResponse,
    RemoveWebhookRequest,
    RemoveWebhookResponse,
    ResendDeadLettersRequest,
    ResendDeadLettersResponse,
    ResolveUserRequest,
    ResolveUserResponse,
    ReverseTransactionRequest,
    ReverseTransactionResponse,
    SetAlertRequest,
    SetAlertResponse,
    SetAppPolicyRequest,
    SetAppPolicyResponse,
    SetSpendingCapRequest,
    SetSpendingCapResponse,
    SetWebhookRequest,
    SetWebhookResponse,
    SummarizeRequest,
    SummarizeResponse,
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
from credit_models.operations import AnyWrite

from credit_client.transport import Method, ReplyT, RequestT

# The answers of the calls whose requests an `Operation` takes.
WriteReply: TypeAlias = (
    Empty
    | GrantCreditsResponse
    | VoidGrantResponse
    | PlaceHoldResponse
    | CaptureHoldResponse
    | ReleaseHoldResponse
    | ExtendHoldResponse
    | ReverseTransactionResponse
    | TransferCreditsResponse
    | AdjustBalanceResponse
    | SetSpendingCapResponse
)

WriteT = TypeVar("WriteT", bound=AnyWrite)
WriteReplyT = TypeVar("WriteReplyT", bound=WriteReply)


def _credit(
    name: str, request: type[RequestT], reply: type[ReplyT], *, writes: bool = False
) -> Method[RequestT, ReplyT]:
    path = f"/credit.v1.CreditService/{name}"
    return Method(path=path, request_type=request, reply_type=reply, writes=writes)


def _ledger(
    name: str, request: type[RequestT], reply: type[ReplyT], *, writes: bool = False
) -> Method[RequestT, ReplyT]:
    path = f"/credit.v1.LedgerService/{name}"
    return Method(path=path, request_type=request, reply_type=reply, writes=writes)


def _history(name: str, request: type[RequestT], reply: type[ReplyT]) -> Method[RequestT, ReplyT]:
    path = f"/credit.v1.HistoryService/{name}"
    return Method(path=path, request_type=request, reply_type=reply, writes=False)


def _alert(
    name: str, request: type[RequestT], reply: type[ReplyT], *, writes: bool = False
) -> Method[RequestT, ReplyT]:
    path = f"/credit.v1.AlertService/{name}"
    return Method(path=path, request_type=request, reply_type=reply, writes=writes)


ADD = _credit("AddCredits", CreditRequest, Empty, writes=True)
USE = _credit("UseCredits", PurchaseRequest, Empty, writes=True)
USER_CREDITS = _credit("GetUserCredits", UserId, UserCredits)
BALANCE = _credit("GetAppBalance", AppId, Balance)
PURCHASES = _credit("ListUserPurchases", UserId, Purchase)
TRANSACTIONS = _credit("ListUserTransactions", UserId, CreditTransaction)

GRANT = _ledger("GrantCredits", GrantCreditsRequest, GrantCreditsResponse, writes=True)
VOID_GRANT = _ledger("VoidGrant", VoidGrantRequest, VoidGrantResponse, writes=True)
PLACE_HOLD = _ledger("PlaceHold", PlaceHoldRequest, PlaceHoldResponse, writes=True)
CAPTURE_HOLD = _ledger("CaptureHold", CaptureHoldRequest, CaptureHoldResponse, writes=True)
RELEASE_HOLD = _ledger("ReleaseHold", ReleaseHoldRequest, ReleaseHoldResponse, writes=True)
EXTEND_HOLD = _ledger("ExtendHold", ExtendHoldRequest, ExtendHoldResponse, writes=True)
REVERSE = _ledger(
    "ReverseTransaction", ReverseTransactionRequest, ReverseTransactionResponse, writes=True
)
TRANSFER = _ledger("TransferCredits", TransferCreditsRequest, TransferCreditsResponse, writes=True)
ADJUST = _ledger("AdjustBalance", AdjustBalanceRequest, AdjustBalanceResponse, writes=True)
SET_SPENDING_CAP = _ledger(
    "SetSpendingCap", SetSpendingCapRequest, SetSpendingCapResponse, writes=True
)
SET_APP_POLICY = _ledger("SetAppPolicy", SetAppPolicyRequest, SetAppPolicyResponse, writes=True)
APP_POLICY = _ledger("GetAppPolicy", GetAppPolicyRequest, GetAppPolicyResponse)
SPENDING_CAP = _ledger("GetSpendingCap", GetSpendingCapRequest, GetSpendingCapResponse)
GRANTS = _ledger("ListGrants", ListGrantsRequest, ListGrantsResponse)
HOLDS = _ledger("ListHolds", ListHoldsRequest, ListHoldsResponse)
FORECAST = _ledger("GetForecast", GetForecastRequest, GetForecastResponse)
BATCH_WRITE = _ledger("BatchWrite", BatchWriteRequest, BatchWriteResponse, writes=True)
WRITE = _ledger("Write", WriteRequest, WriteResponse, writes=True)

QUERY_TRANSACTIONS = _history(
    "QueryTransactions", QueryTransactionsRequest, QueryTransactionsResponse
)
QUERY_PURCHASES = _history("QueryPurchases", QueryPurchasesRequest, QueryPurchasesResponse)
TRANSACTION = _history("GetTransaction", GetTransactionRequest, GetTransactionResponse)
BALANCE_AT = _history("GetBalanceAt", GetBalanceAtRequest, GetBalanceAtResponse)
SUMMARIZE = _history("Summarize", SummarizeRequest, SummarizeResponse)
CHECKPOINTS = _history("ListCheckpoints", ListCheckpointsRequest, ListCheckpointsResponse)
CHECKPOINT = _history("GetCheckpoint", GetCheckpointRequest, GetCheckpointResponse)
WATCH = _history("Watch", WatchRequest, WatchResponse)

SET_ALERT = _alert("SetAlert", SetAlertRequest, SetAlertResponse, writes=True)
REMOVE_ALERT = _alert("RemoveAlert", RemoveAlertRequest, RemoveAlertResponse, writes=True)
ALERTS = _alert("ListAlerts", ListAlertsRequest, ListAlertsResponse)
ALERT_EVENTS = _alert("ListAlertEvents", ListAlertEventsRequest, ListAlertEventsResponse)

SET_WEBHOOK = _alert("SetWebhook", SetWebhookRequest, SetWebhookResponse, writes=True)
WEBHOOKS = _alert("ListWebhooks", ListWebhooksRequest, ListWebhooksResponse)
REMOVE_WEBHOOK = _alert("RemoveWebhook", RemoveWebhookRequest, RemoveWebhookResponse, writes=True)
DEAD_LETTERS = _alert("ListDeadLetters", ListDeadLettersRequest, ListDeadLettersResponse)
RESEND_DEAD_LETTERS = _alert(
    "ResendDeadLetters", ResendDeadLettersRequest, ResendDeadLettersResponse, writes=True
)

# `writes` is about the ledger: a failure of this call has changed no balance.
RESOLVE_USER = Method(
    path="/credit.v1.DirectoryService/ResolveUser",
    request_type=ResolveUserRequest,
    reply_type=ResolveUserResponse,
    writes=False,
)
FIND_USER = Method(
    path="/credit.v1.DirectoryService/FindUser",
    request_type=FindUserRequest,
    reply_type=FindUserResponse,
    writes=False,
)
