"""The findings of `credit-server verify`: what can be wrong in a database, and what to do."""

from dataclasses import dataclass
from enum import Enum


class Remedy(Enum):
    """What corrects a finding."""

    REBUILD = "run credit-server repair: it rebuilds the document if the history is sound"
    MIGRATE = "run credit-server migrate"
    BACKUP = "restore the documents from a backup; repair does not change history"
    INSPECT = "read the document, and correct or remove it by hand after a backup"


class Code(Enum):
    """The kinds of findings. The values are exported, and are stable."""

    # Documents.
    UNREADABLE = "unreadable"
    SCHEMA = "schema"
    # The entries of a history.
    ACCOUNT_MISSING = "account-missing"
    ACCOUNT_DUPLICATE = "account-duplicate"
    HISTORY_MISSING = "history-missing"
    SEQUENCE_GAP = "sequence-gap"
    SEQUENCE_DUPLICATE = "sequence-duplicate"
    KEY_DUPLICATE = "key-duplicate"
    RUNNING_BALANCE = "running-balance"
    OVERDRAWN = "overdrawn"
    EFFECT = "effect"
    ALLOCATION = "allocation"
    BURN_ORDER = "burn-order"
    GRANT_OVERDRAWN = "grant-overdrawn"
    HOLD_AFTER = "hold-after"
    LINK = "link"
    REVERSAL_TOTAL = "reversal-total"
    FINAL_STATE = "final-state"
    TRANSFER = "transfer"
    CHAIN = "chain"
    # The account, which follows from the history.
    REVISION = "revision"
    BALANCE = "balance"
    GRANT_LEFT = "grant-left"
    GRANT_TERMS = "grant-terms"
    HOLD = "hold"
    HOLD_TERMS = "hold-terms"
    CAP = "cap"
    CAP_COUNTER = "cap-counter"
    CHAIN_HEAD = "chain-head"
    ALERT = "alert"
    DUE_TIME = "due-time"
    ACCOUNT_DATES = "account-dates"
    # Purchases.
    PURCHASE_MISSING = "purchase-missing"
    PURCHASE_UNPAID = "purchase-unpaid"
    PURCHASE_DIFFERS = "purchase-differs"
    FINGERPRINT = "fingerprint"
    REFUNDED = "refunded"
    # What belongs to apps.
    APP_TOTAL = "app-total"
    ALERT_EVENT = "alert-event"
    DIRECTORY_DUPLICATE = "directory-duplicate"
    DIRECTORY_COUNTER = "directory-counter"

    @property
    def meaning(self) -> str:
        """What is wrong, for people."""
        return _MEANINGS[self][0]

    @property
    def remedy(self) -> Remedy:
        """What corrects it."""
        return _MEANINGS[self][1]


_MEANINGS = {
    Code.UNREADABLE: ("a document does not have the form of this release", Remedy.INSPECT),
    Code.SCHEMA: ("a collection, validator or index is not that of this release", Remedy.MIGRATE),
    Code.ACCOUNT_MISSING: ("a history has no account", Remedy.REBUILD),
    Code.ACCOUNT_DUPLICATE: ("a user has two accounts", Remedy.INSPECT),
    Code.HISTORY_MISSING: ("an account has no history", Remedy.BACKUP),
    Code.SEQUENCE_GAP: ("entries of a history are missing", Remedy.BACKUP),
    Code.SEQUENCE_DUPLICATE: ("two entries of a user have the same sequence", Remedy.BACKUP),
    Code.KEY_DUPLICATE: ("an idempotency key has two entries", Remedy.INSPECT),
    Code.RUNNING_BALANCE: ("balance_after is not the previous one plus the effect", Remedy.REBUILD),
    Code.OVERDRAWN: ("an entry leaves a balance that its kind must not leave", Remedy.BACKUP),
    Code.EFFECT: ("the effect of an entry is not that of its kind and credits", Remedy.BACKUP),
    Code.ALLOCATION: ("the allocations of an entry do not add up to its credits", Remedy.BACKUP),
    Code.BURN_ORDER: ("credits were not taken in burn order", Remedy.BACKUP),
    Code.GRANT_OVERDRAWN: ("entries take more from a grant than it has", Remedy.BACKUP),
    Code.HOLD_AFTER: ("held_after is not the credits of the hold after the entry", Remedy.BACKUP),
    Code.LINK: ("an entry refers to an entry that is missing or of another kind", Remedy.BACKUP),
    Code.REVERSAL_TOTAL: ("the reversals of an entry do not add up, or exceed it", Remedy.BACKUP),
    Code.FINAL_STATE: ("an entry records a result that its command did not have", Remedy.BACKUP),
    Code.TRANSFER: ("the two sides of a transfer do not agree", Remedy.BACKUP),
    Code.CHAIN: (
        "an entry's hash does not match its fields and the previous entry",
        Remedy.BACKUP,
    ),
    Code.REVISION: ("the account's revision is not the last sequence", Remedy.REBUILD),
    Code.BALANCE: ("the account's balance is not the sum of the effects", Remedy.REBUILD),
    Code.GRANT_LEFT: ("the credits left in a grant differ from the history", Remedy.REBUILD),
    Code.GRANT_TERMS: ("the terms of a grant differ from the history", Remedy.REBUILD),
    Code.HOLD: ("the credits of a hold differ from the history", Remedy.REBUILD),
    Code.HOLD_TERMS: ("the terms of a hold differ from the history", Remedy.REBUILD),
    Code.CAP: ("the user's caps are not those of the latest CAP entry", Remedy.REBUILD),
    Code.CAP_COUNTER: ("the counted credits of a period are not those used in it", Remedy.REBUILD),
    Code.CHAIN_HEAD: ("the account's hash is not that of its latest entry", Remedy.REBUILD),
    Code.ALERT: ("the user's alerts are not those of the ALERT entries", Remedy.REBUILD),
    Code.DUE_TIME: ("due_at is not the earliest time at which something is due", Remedy.REBUILD),
    Code.ACCOUNT_DATES: ("the account's first or last date or requester is wrong", Remedy.REBUILD),
    Code.PURCHASE_MISSING: ("a USE has no purchase", Remedy.REBUILD),
    Code.PURCHASE_UNPAID: ("a purchase has no USE", Remedy.INSPECT),
    Code.PURCHASE_DIFFERS: ("a purchase and its USE differ", Remedy.INSPECT),
    Code.FINGERPRINT: ("the report of a USE is not that of its purchase", Remedy.INSPECT),
    Code.REFUNDED: ("a purchase shows other refunds than were made", Remedy.REBUILD),
    Code.APP_TOTAL: ("an app's total is not the sum of its balances", Remedy.REBUILD),
    Code.ALERT_EVENT: ("an event of an alert does not fit its entry", Remedy.INSPECT),
    Code.DIRECTORY_DUPLICATE: ("an external id has two users", Remedy.INSPECT),
    Code.DIRECTORY_COUNTER: ("the counter of user ids is behind the directory", Remedy.REBUILD),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that must not be in a sound database.

    Attributes:
        code: Its kind.
        found: What is wrong here: a sentence with the values.
        user_id: The user; 0: none.
        app_id: The app; 0: none.
        sequence: The entry; 0: none.
    """

    code: Code
    found: str
    user_id: int = 0
    app_id: int = 0
    sequence: int = 0
