"""The public surface of the package, frozen: changing it means changing this test."""

import credit_models


def test_the_package_exports_the_contract() -> None:
    assert credit_models.__all__ == [
        "AdjustBalanceRequest",
        "AdjustBalanceResponse",
        "Alert",
        "AlertDirection",
        "AlertEvent",
        "AlertServiceBase",
        "AlertServiceStub",
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
        "DeadLetter",
        "Empty",
        "ErrorReason",
        "ExpiringCredits",
        "ExtendHoldRequest",
        "ExtendHoldResponse",
        "ForecastStep",
        "GetAppPolicyRequest",
        "GetAppPolicyResponse",
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
        "ListAlertEventsRequest",
        "ListAlertEventsResponse",
        "ListAlertsRequest",
        "ListAlertsResponse",
        "ListDeadLettersRequest",
        "ListDeadLettersResponse",
        "ListGrantsRequest",
        "ListGrantsResponse",
        "ListHoldsRequest",
        "ListHoldsResponse",
        "ListWebhooksRequest",
        "ListWebhooksResponse",
        "Operation",
        "OperationFailure",
        "OperationOutcome",
        "PlaceHoldRequest",
        "PlaceHoldResponse",
        "Purchase",
        "PurchaseRequest",
        "QueryTransactionsRequest",
        "QueryTransactionsResponse",
        "Receipt",
        "ReleaseHoldRequest",
        "ReleaseHoldResponse",
        "RemoveAlertRequest",
        "RemoveAlertResponse",
        "RemoveWebhookRequest",
        "RemoveWebhookResponse",
        "ResendDeadLettersRequest",
        "ResendDeadLettersResponse",
        "ReverseTransactionRequest",
        "ReverseTransactionResponse",
        "SetAlertRequest",
        "SetAlertResponse",
        "SetAppPolicyRequest",
        "SetAppPolicyResponse",
        "SetSpendingCapRequest",
        "SetSpendingCapResponse",
        "SetWebhookRequest",
        "SetWebhookResponse",
        "SpendingCapStatus",
        "SpendingCaps",
        "SpendingPeriod",
        "TransactionType",
        "TransferCreditsRequest",
        "TransferCreditsResponse",
        "UserCredits",
        "UserId",
        "VoidGrantRequest",
        "VoidGrantResponse",
        "Webhook",
        "WriteRequest",
        "WriteResponse",
    ]


def test_everything_that_is_exported_exists_and_nothing_is_left_out() -> None:
    from credit_models._generated.credit import v1

    assert all(hasattr(credit_models, name) for name in credit_models.__all__)
    assert list(v1.__all__) == credit_models.__all__


def test_the_modules_export_what_they_promise() -> None:
    from credit_models import codec, constraints, operations, reasons, scopes, status

    assert codec.__all__ == [
        "WireCodec",
        "WireError",
        "decode",
        "decode_with_violations",
        "encode",
    ]
    assert constraints.__all__ == [
        "Constraint",
        "Violation",
        "constraints_of",
        "describe",
        "violations",
    ]
    assert operations.__all__ == [
        "WRITE_TYPES",
        "AnyWrite",
        "kind_of",
        "operation_of",
        "request_of",
    ]
    assert reasons.__all__ == [
        "ACCESS_REASONS",
        "DOMAIN",
        "RULES",
        "ReasonRule",
        "method_reasons",
        "reason_name",
    ]
    assert scopes.__all__ == ["METHOD_SCOPES", "SCOPED_BY_OPERATION", "SCOPES"]
    assert status.__all__ == ["StatusDetailsCodec"]
