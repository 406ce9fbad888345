"""Makes the ledger's command from a request that satisfies the contract's constraints."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

import betterproto2

from credit_models import (
    AdjustBalanceRequest,
    AppId,
    CaptureHoldRequest,
    CreditRequest,
    ExtendHoldRequest,
    FindUserRequest,
    GetBalanceAtRequest,
    GetTransactionRequest,
    GrantCategory,
    GrantCreditsRequest,
    ListAlertEventsRequest,
    ListAlertsRequest,
    PlaceHoldRequest,
    PurchaseRequest,
    QueryPurchasesRequest,
    QueryTransactionsRequest,
    ReleaseHoldRequest,
    RemoveAlertRequest,
    RemoveWebhookRequest,
    ReverseTransactionRequest,
    SetAlertRequest,
    SetSpendingCapRequest,
    SetWebhookRequest,
    SpendingCaps,
    SummarizeRequest,
    SummaryGroup,
    TransactionType,
    TransferCreditsRequest,
    VoidGrantRequest,
    WatchRequest,
    ledger,
)
from credit_models.constraints import Violation, violations
from credit_models.ledger import NO_POLICY, UINT32_MAX, Caps, Category, Command, Policy
from credit_models.operations import AnyWrite
from credit_models.translation.alerts import direction_rule
from credit_models.translation.webhooks import webhook_rules

CATEGORIES: Mapping[GrantCategory, Category] = MappingProxyType(
    {
        GrantCategory.UNSPECIFIED: Category.UNSPECIFIED,
        GrantCategory.PAID: Category.PAID,
        GrantCategory.PROMOTIONAL: Category.PROMOTIONAL,
        GrantCategory.OWN: Category.OWN,
    }
)

KINDS: Mapping[TransactionType, ledger.Kind] = MappingProxyType(
    {TransactionType[kind.name]: kind for kind in ledger.Kind}
)


# The requests without a note, metadata and `validate_only`. It is a tuple, because `isinstance`
# with a union would build the union on each call.
_WITHOUT_NOTE = (CreditRequest, PurchaseRequest)

# Any: the fields of commands have many types.
_Fields = dict[str, Any]


def broken_fields(request: betterproto2.Message) -> tuple[Violation, ...]:
    """Return the fields that break the rules of the contract's options and comments."""
    further = _FURTHER_RULES.get(type(request))
    broken = violations(request)
    return broken if further is None else (*broken, *further(request))


def command_of(
    request: AnyWrite,
    *,
    new_id: Callable[[], str],
    credits_max: int = UINT32_MAX,
    policy: Policy = NO_POLICY,
) -> Command:
    """Return the command of a valid write of a user.

    Args:
        request: The write. It sets `user_id`.
        new_id: Makes the id of the purchase, if there is one, and then that of the transaction.
        credits_max: The most credits that the caller may add in one call, 1 to 2**32 - 1.
        policy: The policy of the app.
    """
    make, own_fields = _COMMANDS[type(request)]
    fields: _Fields = {
        "user_id": request.user_id,
        "app_id": request.app_id,
        "created_by": request.created_by,
        "key": request.idempotency_key,
        "expected_revision": request.expected_revision,
        "min_available_after": request.min_available_after,
    }
    if not isinstance(request, _WITHOUT_NOTE):
        fields["validate_only"] = request.validate_only
        fields["metadata"] = tuple(sorted(request.metadata.items()))
        fields["note"] = request.note
    fields.update(own_fields(request))
    if make in _BUYING:
        fields["purchase_id"] = new_id()
    if make in _ADDING:
        fields["credits_max"] = credits_max
    return make(transaction_id=new_id(), policy=policy, **fields)


def caps_from_message(caps: SpendingCaps | None) -> Caps:
    """Return the caps of a request."""
    if caps is None:
        return ledger.NO_CAPS
    return Caps(hour=caps.per_hour, day=caps.per_day, month=caps.per_month)


def _category_rule(request: GrantCreditsRequest) -> Iterator[Violation]:
    if request.category not in CATEGORIES:
        what = f"must be a known category, got {int(request.category)}"
        yield Violation(field="category", description=what)


def _target_rule(request: TransferCreditsRequest) -> Iterator[Violation]:
    if _target(request) == (request.user_id, request.app_id):
        what = "must differ from user_id unless to_app_id differs from app_id"
        yield Violation(field="to_user_id", description=what)


def _app_caps_rule(request: SetSpendingCapRequest) -> Iterator[Violation]:
    if request.user_id is None:
        for name in ("note", "metadata", "min_available_after"):
            if getattr(request, name) not in ("", {}, None):
                yield Violation(field=name, description="must not be set if user_id is not set")


def _query_rule(
    request: QueryTransactionsRequest | QueryPurchasesRequest | SummarizeRequest,
) -> Iterator[Violation]:
    """Require an app for all users, and no field that belongs to the history of one user."""
    if request.user_id is not None:
        return
    if request.app_id is None:
        yield Violation(field="app_id", description="must be set if user_id is not set")
    of_user = {"after_sequence": 0, "before_sequence": None, "related_id": "", "min_revision": None}
    for name, unset in of_user.items():
        if getattr(request, name, unset) != unset:
            what = "must not be set if user_id is not set: it belongs to a user's history"
            yield Violation(field=name, description=what)


def _transactions_rule(request: QueryTransactionsRequest) -> Iterator[Violation]:
    if not KINDS.keys() >= set(request.types):
        yield Violation(field="types", description="must be known types of transactions")
    yield from _query_rule(request)


def _summary_rule(request: SummarizeRequest) -> Iterator[Violation]:
    if request.group_by not in set(SummaryGroup):
        yield Violation(field="group_by", description="must be a known group")
    begin, end = request.created_from, request.created_until
    if begin is not None and end is not None and begin >= end:
        yield Violation(field="created_until", description="must be after created_from")
    yield from _query_rule(request)


def _balance_rule(request: GetBalanceAtRequest) -> Iterator[Violation]:
    if (request.at is None) == (request.sequence is None):
        both = "must not be set together with sequence"
        what = "must be set if sequence is not set" if request.at is None else both
        yield Violation(field="at", description=what)


def _name_rule(request: GetTransactionRequest) -> Iterator[Violation]:
    """Require either an id, or a key with its user and its app."""
    parts = ("user_id", "app_id", "idempotency_key")
    given = [name for name in parts if getattr(request, name) not in (None, "")]
    if request.transaction_id:
        for name in given:
            yield Violation(field=name, description="must not be set with transaction_id")
    elif not given:
        what = "must be set if user_id, app_id and idempotency_key are not set"
        yield Violation(field="transaction_id", description=what)
    else:
        for name in parts:
            if name not in given:
                yield Violation(field=name, description="must be set without transaction_id")


def _scope_rule(request: WatchRequest) -> Iterator[Violation]:
    """Require a user or an app."""
    if request.user_id is None and request.app_id is None:
        yield Violation(field="user_id", description="must be set if app_id is not set")


def _revision_rule(request: AppId | ListAlertsRequest) -> Iterator[Violation]:
    if request.min_revision is not None and request.user_id is None:
        yield Violation(field="min_revision", description="must not be set if user_id is not set")


def _position_rule(request: ListAlertEventsRequest) -> Iterator[Violation]:
    if request.from_now and request.after_position:
        yield Violation(field="after_position", description="must not be set with from_now")


def _user_rule(request: FindUserRequest) -> Iterator[Violation]:
    """Require either a number, or an external id with its app."""
    parts = ("app_id", "external_id")
    given = [name for name in parts if getattr(request, name) not in (None, "")]
    if request.user_id is not None:
        for name in given:
            yield Violation(field=name, description="must not be set together with user_id")
    elif not given:
        what = "must be set if app_id and external_id are not set"
        yield Violation(field="user_id", description=what)
    else:
        for name in parts:
            if name not in given:
                yield Violation(field=name, description="must be set if user_id is not set")


# The rules that the contract defines in comments and not in options. Any: each takes its request.
_FURTHER_RULES: Mapping[type[betterproto2.Message], Callable[[Any], Iterator[Violation]]] = (
    MappingProxyType(
        {
            GrantCreditsRequest: _category_rule,
            TransferCreditsRequest: _target_rule,
            SetSpendingCapRequest: _app_caps_rule,
            QueryTransactionsRequest: _transactions_rule,
            QueryPurchasesRequest: _query_rule,
            GetTransactionRequest: _name_rule,
            GetBalanceAtRequest: _balance_rule,
            SummarizeRequest: _summary_rule,
            WatchRequest: _scope_rule,
            SetAlertRequest: direction_rule,
            RemoveAlertRequest: direction_rule,
            SetWebhookRequest: webhook_rules,
            RemoveWebhookRequest: webhook_rules,
            FindUserRequest: _user_rule,
            AppId: _revision_rule,
            ListAlertsRequest: _revision_rule,
            ListAlertEventsRequest: _position_rule,
        }
    )
)


def _target(request: TransferCreditsRequest) -> tuple[int, int]:
    """Return the user and the app that get the credits of a transfer."""
    user_id, app_id = request.to_user_id, request.to_app_id
    return (
        request.user_id if user_id is None else user_id,
        request.app_id if app_id is None else app_id,
    )


def _add(request: CreditRequest) -> _Fields:
    return {"credits": request.credits}


def _use(request: PurchaseRequest) -> _Fields:
    return {
        "report_id": request.report_id,
        "report_name": request.report_name,
        "credits": request.credits,
        "once": request.once,
    }


def _grant(request: GrantCreditsRequest) -> _Fields:
    priority = request.priority
    return {
        "credits": request.credits,
        "effective_at": _instant(request.effective_at),
        "expires_at": _instant(request.expires_at),
        "expires_after": _duration(request.expires_after_seconds),
        "priority": ledger.PRIORITY_DEFAULT if priority is None else priority,
        "category": CATEGORIES[request.category],
    }


def _void(request: VoidGrantRequest) -> _Fields:
    return {"grant_id": request.grant_id}


def _place(request: PlaceHoldRequest) -> _Fields:
    return {
        "credits": request.credits,
        "expires_after": _duration(request.expires_after_seconds),
        "purpose": request.purpose,
        "allow_partial": request.allow_partial,
    }


def _capture(request: CaptureHoldRequest) -> _Fields:
    return {
        "hold_id": request.hold_id,
        "report_id": request.report_id,
        "report_name": request.report_name,
        "credits": request.credits or 0,
        "final": request.final is not False,
        "allow_excess": request.allow_excess,
    }


def _release(request: ReleaseHoldRequest) -> _Fields:
    return {"hold_id": request.hold_id}


def _extend(request: ExtendHoldRequest) -> _Fields:
    return {
        "hold_id": request.hold_id,
        "expires_after": _duration(request.expires_after_seconds),
    }


def _reverse(request: ReverseTransactionRequest) -> _Fields:
    return {
        "reversed_id": request.transaction_id,
        "credits": request.credits or 0,
        "restore_until": _instant(request.restore_until),
    }


def _transfer(request: TransferCreditsRequest) -> _Fields:
    to_user_id, to_app_id = _target(request)
    return {"to_user_id": to_user_id, "to_app_id": to_app_id, "credits": request.credits}


def _adjust(request: AdjustBalanceRequest) -> _Fields:
    return {"delta": request.delta}


def _set_cap(request: SetSpendingCapRequest) -> _Fields:
    return {"caps": caps_from_message(request.caps)}


# The command of each write, and the fields of it that other commands lack.
_COMMANDS: Mapping[type[AnyWrite], tuple[type[Command], Callable[[Any], _Fields]]] = (
    MappingProxyType(
        {
            CreditRequest: (ledger.Add, _add),
            PurchaseRequest: (ledger.Use, _use),
            GrantCreditsRequest: (ledger.GrantCredits, _grant),
            VoidGrantRequest: (ledger.VoidGrant, _void),
            PlaceHoldRequest: (ledger.PlaceHold, _place),
            CaptureHoldRequest: (ledger.CaptureHold, _capture),
            ReleaseHoldRequest: (ledger.ReleaseHold, _release),
            ExtendHoldRequest: (ledger.ExtendHold, _extend),
            ReverseTransactionRequest: (ledger.ReverseTransaction, _reverse),
            TransferCreditsRequest: (ledger.TransferCredits, _transfer),
            AdjustBalanceRequest: (ledger.AdjustBalance, _adjust),
            SetSpendingCapRequest: (ledger.SetSpendingCap, _set_cap),
        }
    )
)
_BUYING = frozenset({ledger.Use, ledger.CaptureHold})
_ADDING = frozenset({ledger.Add, ledger.GrantCredits, ledger.AdjustBalance})


def _instant(time: datetime | None) -> datetime | None:
    """Return a time in whole milliseconds: the precision of the ledger."""
    return None if time is None else time.replace(microsecond=time.microsecond // 1000 * 1000)


def _duration(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
