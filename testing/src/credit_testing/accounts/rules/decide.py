"""Predict the answer to any write, from the entries before it and the time.

The order of the rejections is that of the contract's option `errors`.
"""

from collections.abc import Callable, Mapping
from datetime import datetime

import betterproto2
from credit_models import (
    AdjustBalanceRequest,
    CaptureHoldRequest,
    CreditRequest,
    ExtendHoldRequest,
    GrantCreditsRequest,
    PlaceHoldRequest,
    PurchaseRequest,
    ReleaseHoldRequest,
    ReverseTransactionRequest,
    SetSpendingCapRequest,
    TransferCreditsRequest,
    VoidGrantRequest,
)

from credit_testing.accounts.book import NameOf
from credit_testing.accounts.model import Account, Entry
from credit_testing.accounts.policies import AppRules
from credit_testing.accounts.rules import balances, grants, holds, reversals
from credit_testing.accounts.rules.decision import Decided, Decision, Refused, Rejected
from credit_testing.accounts.rules.requests import Write, differing_fields, users_of


def decide(
    accounts: Mapping[int, Account],
    request: Write,
    now: datetime,
    rules: Mapping[int, AppRules],
    name: NameOf,
) -> Decided | Refused:
    """Return the answer that a request has at a time.

    Args:
        accounts: The accounts of its users, as the entries before it left them.
        request: The request, valid by the contract's constraints.
        now: The time.
        rules: The policies of apps that have one.
        name: Returns the ids of new entries.
    """
    account = accounts[users_of(request)[0]]
    known = account.keys.get((request.app_id, request.idempotency_key))
    if known is not None and request.idempotency_key:
        earlier, entry = known
        differing = differing_fields(earlier, request)
        if differing:
            return Refused("IDEMPOTENCY_KEY_REUSED", (("fields", ",".join(differing)),))
        return Decided(main=entry, replayed=True)
    decision = Decision(accounts, request, now, rules.get(request.app_id, AppRules()), name)
    try:
        return decision.result(_RULES[type(request)])
    except Rejected as rejected:
        return rejected.refused


_RULES: Mapping[type[betterproto2.Message], Callable[[Decision], Entry]] = {
    CreditRequest: balances.add,
    PurchaseRequest: balances.use,
    GrantCreditsRequest: grants.grant,
    VoidGrantRequest: grants.void,
    PlaceHoldRequest: holds.place,
    CaptureHoldRequest: holds.capture,
    ReleaseHoldRequest: holds.release,
    ExtendHoldRequest: holds.extend,
    ReverseTransactionRequest: reversals.reverse,
    TransferCreditsRequest: balances.transfer,
    AdjustBalanceRequest: balances.adjust,
    SetSpendingCapRequest: balances.set_cap,
}
