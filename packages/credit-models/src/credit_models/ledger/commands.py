"""The commands of the ledger: what a caller, or the server's sweeper, requests.

Most attributes have the names of the request's fields in the contract. `requests` lists the others.
Times are in UTC and in whole milliseconds, which is the precision of the store.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from credit_models.ledger.records import (
    NO_CAPS,
    NO_POLICY,
    PRIORITY_DEFAULT,
    UINT32_MAX,
    Caps,
    Category,
    Direction,
    Pairs,
    Policy,
    Purchase,
    Transaction,
)

# The user id, the app id and the report of a purchase.
ReportKey = tuple[int, int, str]

# How long a hold lasts if its request does not define it, and at most, extensions included.
HOLD_DEFAULT = timedelta(minutes=15)
HOLD_MAX = timedelta(days=7)


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteCommand:
    """What all commands have in common.

    Attributes:
        user_id: The user, 1 to 2**32 - 1, like the other ids.
        app_id: The app.
        created_by: The number of the requester.
        key: The client's idempotency key; empty if it sent none.
        transaction_id: The id of the transaction if the command is accepted. It is set on arrival
            and the same in every attempt, so it shows whether an attempt with an unknown result
            took effect.
        expected_revision: The account's revision that the command requires; None: any.
        min_available_after: The balance in the app that the command must leave; None: any.
        validate_only: Whether the command is only decided and not written. The decision is the
            same, so the ledger ignores it.
        policy: The policy of the app. It is not part of the request.
    """

    user_id: int
    app_id: int
    created_by: int
    key: str
    transaction_id: str
    expected_revision: int | None = None
    min_available_after: int | None = None
    validate_only: bool = False
    policy: Policy = NO_POLICY

    @property
    def users(self) -> tuple[int, ...]:
        """The users whose accounts the command may change."""
        return (self.user_id,)

    @property
    def reference(self) -> str:
        """The id of the entry that the command refers to; empty if there is none."""
        return ""

    @property
    def once_key(self) -> ReportKey | None:
        """The report that must not be bought again; None if that does not matter."""
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedCommand(WriteCommand):
    """What all commands but `Add` and `Use` have in common.

    Attributes are those of `WriteCommand`, and:
        metadata: Names and values for the entry, ordered by name.
        note: A note for the entry, for people.
    """

    metadata: Pairs = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Add(WriteCommand):
    """Add credits to a user's balance in an app.

    Attributes are those of `WriteCommand`, and:
        credits: The number of credits, 1 to 2**32 - 1.
        credits_max: The most credits that this caller may add in one call, 1 to 2**32 - 1. It is
            not part of the request: a retry succeeds although the limit was lowered meanwhile.
    """

    credits: int
    credits_max: int = UINT32_MAX


@dataclass(frozen=True, kw_only=True, slots=True)
class Use(WriteCommand):
    """Buy a report with a user's credits in an app.

    Attributes are those of `WriteCommand`, and:
        report_id: The report, as the app names it.
        report_name: Its name for people.
        credits: The price, 1 to 2**32 - 1.
        purchase_id: The id of the purchase if the command is accepted.
        once: Whether the command is rejected if the user owns the report.
    """

    report_id: str
    report_name: str
    credits: int
    purchase_id: str
    once: bool = False

    @property
    def once_key(self) -> ReportKey | None:
        """The report, if the user may buy it only once."""
        return (self.user_id, self.app_id, self.report_id) if self.once else None


@dataclass(frozen=True, kw_only=True, slots=True)
class GrantCredits(AnnotatedCommand):
    """Add credits with terms of their own.

    Attributes are those of `AnnotatedCommand`, and:
        credits: The number of credits, 1 to 2**32 - 1.
        credits_max: The most credits that this caller may add in one call; see `Add`.
        effective_at: The start; None, or a time in the past: at once.
        expires_at: The end; None: never, or as `expires_after` defines. After `effective_at`.
        expires_after: The time from the start to the end, more than 0. Not with `expires_at`.
        priority: Credits of the lowest priority are used first, 0 to 1000.
        category: Where the credits come from.
    """

    credits: int
    credits_max: int = UINT32_MAX
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    expires_after: timedelta | None = None
    priority: int = PRIORITY_DEFAULT
    category: Category = Category.UNSPECIFIED


@dataclass(frozen=True, kw_only=True, slots=True)
class VoidGrant(AnnotatedCommand):
    """Take back what is left of a grant.

    Attributes are those of `AnnotatedCommand`, and:
        grant_id: The grant.
    """

    grant_id: str

    @property
    def reference(self) -> str:
        """The grant."""
        return self.grant_id


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceHold(AnnotatedCommand):
    """Reserve credits.

    Attributes are those of `AnnotatedCommand`, and:
        credits: The number of credits, 1 to 2**32 - 1.
        expires_after: How long the hold lasts, more than 0 and at most `HOLD_MAX`; None:
            `HOLD_DEFAULT`.
        purpose: What it is for, for people.
        allow_partial: Whether the hold takes fewer credits if the balance is too low.
    """

    credits: int
    expires_after: timedelta | None = None
    purpose: str = ""
    allow_partial: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptureHold(AnnotatedCommand):
    """Buy a report with the credits of a hold.

    Attributes are those of `AnnotatedCommand`, and:
        hold_id: The hold.
        report_id: The report, as the app names it.
        report_name: Its name for people.
        purchase_id: The id of the purchase if the command is accepted.
        credits: The price, 0 to 2**32 - 1; 0: all that the hold holds.
        final: Whether the rest of the hold is released.
        allow_excess: Whether the balance pays the part of the price that exceeds the hold.
    """

    hold_id: str
    report_id: str
    report_name: str
    purchase_id: str
    credits: int = 0
    final: bool = True
    allow_excess: bool = False

    @property
    def reference(self) -> str:
        """The hold."""
        return self.hold_id


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseHold(AnnotatedCommand):
    """Return all credits of a hold to the balance.

    Attributes are those of `AnnotatedCommand`, and:
        hold_id: The hold.
    """

    hold_id: str

    @property
    def reference(self) -> str:
        """The hold."""
        return self.hold_id


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtendHold(AnnotatedCommand):
    """Set a new end of a hold.

    Attributes are those of `AnnotatedCommand`, and:
        hold_id: The hold.
        expires_after: The time from now to the new end, more than 0 and at most `HOLD_MAX`. The new
            end is at most `HOLD_MAX` after the hold was placed.
    """

    hold_id: str
    expires_after: timedelta

    @property
    def reference(self) -> str:
        """The hold."""
        return self.hold_id


@dataclass(frozen=True, kw_only=True, slots=True)
class ReverseTransaction(AnnotatedCommand):
    """Refund a use, or take back credits that were added.

    Attributes are those of `AnnotatedCommand`, and:
        reversed_id: The entry to reverse.
        credits: The number of credits, 0 to 2**32 - 1; 0: all that can be reversed.
        restore_until: The new end of grants that have ended or were voided since the use; None:
            what is refunded to them expires at once.
    """

    reversed_id: str
    credits: int = 0
    restore_until: datetime | None = None

    @property
    def reference(self) -> str:
        """The entry to reverse."""
        return self.reversed_id


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferCredits(AnnotatedCommand):
    """Move credits to another app or user, with their terms.

    Attributes are those of `AnnotatedCommand`, and:
        to_user_id: The user that gets the credits.
        to_app_id: The app that gets the credits. User and app are not both those of the source.
        credits: The number of credits, 1 to 2**32 - 1.
        to_policy: The policy of the app that gets the credits. It is not part of the request.
    """

    to_user_id: int
    to_app_id: int
    credits: int
    to_policy: Policy = NO_POLICY

    @property
    def users(self) -> tuple[int, ...]:
        """The user that pays, then the one that gets the credits if it is another one."""
        if self.to_user_id == self.user_id:
            return (self.user_id,)
        return (self.user_id, self.to_user_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdjustBalance(AnnotatedCommand):
    """Correct a balance.

    Attributes are those of `AnnotatedCommand`, whose `note` is the reason and must not be empty,
    and:
        delta: The change, -(2**32 - 1) to 2**32 - 1, not 0.
        credits_max: The most credits that this caller may add in one call; see `Add`.
    """

    delta: int
    credits_max: int = UINT32_MAX


@dataclass(frozen=True, kw_only=True, slots=True)
class SetSpendingCap(AnnotatedCommand):
    """Set a user's own caps in an app.

    Attributes are those of `AnnotatedCommand`, and:
        caps: The caps; `NO_CAPS` removes them, and the app's policy applies again.
    """

    caps: Caps = NO_CAPS


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAlert(WriteCommand):
    """Set or remove an alert of a user in an app.

    Attributes are those of `WriteCommand`, and the alert's:
        credits: The limit, 1 to 2**32 - 1.
        direction: The direction.
        remove: Whether the alert is removed.
    """

    credits: int
    direction: Direction
    remove: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Settle(WriteCommand):
    """Write what is due in an app: the server's sweeper requests it.

    It makes no entry of its own. Its key is empty, and its `transaction_id` is not used.
    """


Command = (
    Add
    | Use
    | GrantCredits
    | VoidGrant
    | PlaceHold
    | CaptureHold
    | ReleaseHold
    | ExtendHold
    | ReverseTransaction
    | TransferCredits
    | AdjustBalance
    | SetSpendingCap
    | SetAlert
    | Settle
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup:
    """What a command must know of the history.

    See `WriteCommand.reference` and `WriteCommand.once_key`.

    Attributes:
        earlier: The entry with the command's key, of the same user in the same app, or the one
            with the command's own transaction id.
        referenced: The user's entry with the id of the command's reference, in any app.
        latest_related: The latest of the user's entries whose `related_id` is that reference.
        voided: The grants that paid for the referenced entry and were voided after it, and when
            each was voided.
        owned_purchase: A purchase of the report that may be bought only once, which is not
            refunded in full.
    """

    earlier: Transaction | None = None
    referenced: Transaction | None = None
    latest_related: Transaction | None = None
    voided: Mapping[str, datetime] = field(default_factory=dict)
    owned_purchase: Purchase | None = None


NOTHING_FOUND = Lookup()
