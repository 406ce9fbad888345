"""Draw random requests of all writes, many of which refer to earlier ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

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
    SpendingCaps,
    TransferCreditsRequest,
    VoidGrantRequest,
)

from credit_testing.accounts.rules.requests import Write

NO_ID = "0" * 24
_ABOUT_MAX = 40
"""A request refers to one of so many of the latest suitable writes."""
_REPORT: dict[str, Any] = {"report_id": "r", "report_name": "Report"}


class Draw:
    """Draws one request; each method is one call.

    Attributes:
        random: The source of randomness.
        fields: The fields that all requests have. Any: they have several types.
        receipts: The latest writes and the ids of their transactions.
        users: All users that have credits.
        now: Returns the time.
    """

    def __init__(
        self,
        random: Random,
        fields: dict[str, Any],
        receipts: Sequence[tuple[Write, str]],
        users: Sequence[int],
        now: Callable[[], datetime],
    ) -> None:
        self.random = random
        self.fields = fields
        self.receipts = receipts
        self.users = users
        self.now = now

    def request(self, make: "Callable[[Draw], Write] | None" = None) -> Write:
        """Return a request that `make` draws; None: one of any call."""
        request = (make or self._maker())(self)
        if isinstance(request, CreditRequest | PurchaseRequest):
            return request
        return replace(
            request,
            validate_only=self.random.random() < 0.05,
            min_available_after=10 if self.random.random() < 0.05 else None,
        )

    def _maker(self) -> "Callable[[Draw], Write]":
        """Return a call. If it needs an earlier write that does not exist, mostly choose again."""
        while True:
            make = self.random.choice(MAKERS)
            kinds = _ABOUT.get(make)
            if kinds is None or self._fitting(*kinds) or self.random.random() < 0.1:
                return make

    def add(self) -> Write:
        return CreditRequest(**self.fields, credits=self.up_to(60))

    def use(self) -> Write:
        once = self.random.random() < 0.3
        return PurchaseRequest(**self.fields, **_REPORT, credits=self.up_to(40), once=once)

    def grant(self) -> Write:
        ends: tuple[dict[str, Any], ...] = (
            {},
            {"expires_after_seconds": self._seconds()},
            {"expires_at": self._soon()},
        )
        return GrantCreditsRequest(
            **self.fields,
            **self.random.choice(ends),
            credits=self.up_to(60),
            priority=self.random.choice((None, None, 0, 400, 900)),
            effective_at=self._soon() if self.random.random() < 0.2 else None,
        )

    def void(self) -> Write:
        id_, fields = self._about(Draw.void)
        return VoidGrantRequest(**fields, grant_id=id_)

    def hold(self) -> Write:
        return PlaceHoldRequest(
            **self.fields,
            credits=self.up_to(40),
            expires_after_seconds=self._seconds(),
            allow_partial=self.random.random() < 0.5,
        )

    def capture(self) -> Write:
        id_, fields = self._about(Draw.capture)
        return CaptureHoldRequest(
            **fields,
            **_REPORT,
            hold_id=id_,
            credits=self.up_to(self.random.choice((20, 60)))
            if self.random.random() < 0.6
            else None,
            final=self.random.random() < 0.6,
            allow_excess=self.random.random() < 0.3,
        )

    def release(self) -> Write:
        id_, fields = self._about(Draw.release)
        return ReleaseHoldRequest(**fields, hold_id=id_)

    def extend(self) -> Write:
        id_, fields = self._about(Draw.extend)
        return ExtendHoldRequest(**fields, hold_id=id_, expires_after_seconds=self._seconds())

    def reverse(self) -> Write:
        id_, fields = self._about(Draw.reverse)
        earlier = self._fitting(ReverseTransactionRequest)
        if earlier and self.random.random() < 0.3:  # only what is left of it can be reversed again
            before, _ = self.random.choice(earlier)
            assert isinstance(before, ReverseTransactionRequest)
            id_, fields = before.transaction_id, self._of_same(before)
        return ReverseTransactionRequest(
            **fields,
            transaction_id=id_,
            credits=self.random.choice((None, self.up_to(10))),
            restore_until=self._soon() if self.random.random() < 0.3 else None,
        )

    def transfer(self) -> Write:
        others = [user for user in self.users if user != self.fields["user_id"]]
        return TransferCreditsRequest(
            **self.fields, to_user_id=self.random.choice(others), credits=self.up_to(20)
        )

    def adjust(self) -> Write:
        delta = self.random.choice((1, -1)) * self.up_to(20)
        return AdjustBalanceRequest(**self.fields, note="correction", delta=delta)

    def cap(self) -> Write:
        capped = self.random.random() < 0.5
        caps = SpendingCaps(per_hour=self.random.randint(30, 300)) if capped else None
        return SetSpendingCapRequest(**self.fields, caps=caps)

    def up_to(self, greatest: int) -> int:
        """Return an amount from 1."""
        return self.random.randint(1, greatest)

    def _seconds(self) -> int:
        return self.random.randint(1, 3)

    def _soon(self) -> datetime:
        time = self.now() + timedelta(milliseconds=self.random.randint(-200, 2500))
        return time.replace(microsecond=time.microsecond // 1000 * 1000)

    def _fitting(self, *kinds: type) -> list[tuple[Write, str]]:
        return [(request, id_) for request, id_ in self.receipts if isinstance(request, kinds)]

    def _about(self, make: "Callable[[Any], Write]") -> tuple[str, dict[str, Any]]:
        """Return the id of a transaction, and the fields of a call about it."""
        fitting = self._fitting(*_ABOUT[make])
        if not fitting:
            return NO_ID, self.fields
        # Half of the requests concern the latest write: a hold that is still open, for example.
        latest = self.random.random() < 0.5
        request, id_ = fitting[-1] if latest else self.random.choice(fitting[-_ABOUT_MAX:])
        return id_, self._of_same(request)

    def _of_same(self, request: Write) -> dict[str, Any]:
        """Return the fields of a request of the same user in the same app."""
        return {**self.fields, "user_id": request.user_id, "app_id": request.app_id}


MAKERS: tuple[Callable[[Draw], Write], ...] = (
    *(Draw.add, Draw.add, Draw.use, Draw.use, Draw.grant, Draw.grant, Draw.grant),
    *(Draw.hold, Draw.hold, Draw.hold, Draw.capture, Draw.capture, Draw.release),
    *(Draw.extend, Draw.reverse, Draw.reverse, Draw.reverse, Draw.transfer, Draw.void),
    *(Draw.adjust, Draw.cap),
)
_ABOUT: Mapping[Callable[[Draw], Write], tuple[type, ...]] = {
    Draw.capture: (PlaceHoldRequest,),
    Draw.release: (PlaceHoldRequest,),
    Draw.extend: (PlaceHoldRequest,),
    Draw.void: (GrantCreditsRequest,),
    Draw.reverse: (PurchaseRequest, CaptureHoldRequest, CreditRequest, GrantCreditsRequest),
}
"""The calls about an earlier write, and the kinds of that write."""
