"""Make the command of a write: check the caller's permissions, validate and convert the request."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

import betterproto2
from credit_models import (
    AdjustBalanceRequest,
    CaptureHoldRequest,
    CreditRequest,
    ExtendHoldRequest,
    GrantCategory,
    GrantCreditsRequest,
    PlaceHoldRequest,
    PurchaseRequest,
    ReleaseHoldRequest,
    ReverseTransactionRequest,
    SetAppPolicyRequest,
    SetSpendingCapRequest,
    SpendingCaps,
    TransferCreditsRequest,
    VoidGrantRequest,
    ledger,
)
from credit_models.constraints import Violation, violations
from credit_models.ledger import UINT32_MAX, Caps, Category, Command, Receipt

from credit_server.access import authorize
from credit_server.access.identity import Identity
from credit_server.api import errors, refusals
from credit_server.commit import WriteResult
from credit_server.store.port import Store

Write = (
    CreditRequest
    | PurchaseRequest
    | GrantCreditsRequest
    | VoidGrantRequest
    | PlaceHoldRequest
    | CaptureHoldRequest
    | ReleaseHoldRequest
    | ExtendHoldRequest
    | ReverseTransactionRequest
    | TransferCreditsRequest
    | AdjustBalanceRequest
    | SetSpendingCapRequest
)

CATEGORIES: Mapping[GrantCategory, Category] = MappingProxyType(
    {
        GrantCategory.UNSPECIFIED: Category.UNSPECIFIED,
        GrantCategory.PAID: Category.PAID,
        GrantCategory.PROMOTIONAL: Category.PROMOTIONAL,
        GrantCategory.OWN: Category.OWN,
    }
)


class Commands:
    """Makes commands. All services of the contract share one instance."""

    def __init__(self, store: Store, *, credits_max: int = UINT32_MAX) -> None:
        """Prepare to make commands.

        Args:
            store: Makes the ids.
            credits_max: The most credits that one call may add, 1 to 2**32 - 1; an identity may
                have a lower limit.
        """
        self._new_id = store.new_id
        self._credits_max = credits_max

    def of(self, request: Write, identity: Identity | None) -> Command:
        """Return the command of a write.

        Args:
            request: The write.
            identity: The identity of its caller; None: there is none.

        Raises:
            AccessDenied: The caller may not make the write.
            GRPCError: The write breaks constraints of the contract.
        """
        check(request, identity)
        make, own_fields = _CALLS[type(request)]
        fields = _common_fields(request)
        fields.update(own_fields(request))
        if make in _BUYING:
            fields["purchase_id"] = self._new_id()
        if make in _ADDING:
            fields["credits_max"] = authorize.add_limit(
                identity, request.app_id, credits_max=self._credits_max
            )
        return make(transaction_id=self._new_id(), **fields)


def check(request: Write | SetAppPolicyRequest, identity: Identity | None) -> None:
    """Check that a caller may make a write, and that the request is valid.

    Raises:
        AccessDenied: The caller may not make the write.
        GRPCError: The write breaks constraints of the contract.
    """
    authorize.check_app(identity, request)
    authorize.check_actor(identity, request)
    validate(request)


def validate(request: betterproto2.Message) -> None:
    """Check a request against the contract's constraints.

    Raises:
        GRPCError: The request breaks them.
    """
    broken = violations(request)
    further = _FURTHER_RULES.get(type(request))
    if further is not None:
        broken = (*broken, *further(request))
    if broken:
        raise errors.invalid(broken)


def as_raised(ending: WriteResult) -> Receipt | BaseException | None:
    """Return the receipt or the exception that the caller of a single write gets."""
    if ending is None or isinstance(ending, Receipt | BaseException):
        return ending
    return refusals.refused(ending)


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
                yield Violation(field=name, description="must not be set without user_id")


# The rules that the comments of the contract define, and no option. Any: each takes its request.
_FURTHER_RULES: Mapping[type[betterproto2.Message], Callable[[Any], Iterator[Violation]]] = (
    MappingProxyType(
        {
            GrantCreditsRequest: _category_rule,
            TransferCreditsRequest: _target_rule,
            SetSpendingCapRequest: _app_caps_rule,
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


# Any, from here on: the fields of commands have many types.
_Fields = dict[str, Any]


def _common_fields(request: Write) -> _Fields:
    """Return the fields that all commands have."""
    fields: _Fields = {
        "user_id": request.user_id,
        "app_id": request.app_id,
        "created_by": request.created_by,
        "key": request.idempotency_key,
        "expected_revision": request.expected_revision,
        "min_available_after": request.min_available_after,
    }
    if not isinstance(request, CreditRequest | PurchaseRequest):
        fields["validate_only"] = request.validate_only
        fields["metadata"] = tuple(sorted(request.metadata.items()))
        fields["note"] = request.note
    return fields


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
    if request.user_id is None:
        raise errors.invalid([Violation(field="user_id", description="must be set")])
    return {"caps": caps_from_message(request.caps)}


# The command of each write, and the fields of it that other commands lack.
_CALLS: Mapping[type[Write], tuple[type[Command], Callable[[Any], _Fields]]] = MappingProxyType(
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
_BUYING = (ledger.Use, ledger.CaptureHold)
_ADDING = (ledger.Add, ledger.GrantCredits, ledger.AdjustBalance)


def _instant(time: datetime | None) -> datetime | None:
    """Return a time in whole milliseconds: the precision of the ledger."""
    return None if time is None else time.replace(microsecond=time.microsecond // 1000 * 1000)


def _duration(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
