"""Read the entries of all users, and check that they add up to the accounts."""

from collections.abc import Callable, Iterator
from itertools import dropwhile

from credit_server.backup.errors import LedgerDamaged
from credit_server.store.exporting import AccountState, Position
from credit_server.store.extended_json import Document


class Histories:
    """Selects the entries that belong to a state of the ledger.

    Both iterators are in the order of users, so the memory does not depend on their number.
    """

    def __init__(
        self,
        accounts: Iterator[AccountState],
        *,
        after: Position,
        has_account: Callable[[int], bool],
    ) -> None:
        """Begin after a position.

        Args:
            accounts: The accounts of the state, by user.
            after: The position after which the entries begin. Earlier ones were checked.
            has_account: Returns whether a user has an account now.
        """
        self._accounts = dropwhile(lambda each: each.user_id < after.user_id, accounts)
        self._after = after
        self._has_account = has_account
        self._stranger = 0
        self._account: AccountState | None = None
        self._sequence = 0
        self._balances: dict[int, int] = {}

    def entries(self, found: Iterator[Document]) -> Iterator[Document]:
        """Yield the entries of the state.

        Raises:
            LedgerDamaged: An account and its history do not agree.
        """
        self._next_account()
        for entry in found:
            _check_place(entry)
            account = self._account_of(entry["user_id"])
            if account is None or entry["sequence"] > account.revision:
                continue  # the entry was written after the snapshot
            self._follow(account, entry)
            yield entry
        while self._account is not None:
            self._next_account()

    def purchases(self, found: Iterator[Document]) -> Iterator[tuple[Document, int]]:
        """Yield the purchases of the state, each with the revision of its user."""
        account = next(self._accounts, None)
        for purchase in found:
            _check_place(purchase)
            while account is not None and account.user_id < purchase["user_id"]:
                account = next(self._accounts, None)
            if account is None:
                return
            of_user = account.user_id == purchase["user_id"]
            if of_user and purchase["sequence"] <= account.revision:
                yield purchase, account.revision

    def _account_of(self, user_id: int) -> AccountState | None:
        while self._account is not None and self._account.user_id < user_id:
            self._next_account()
        if self._account is not None and self._account.user_id == user_id:
            return self._account
        if user_id != self._stranger:
            if not self._has_account(user_id):
                raise _damaged(user_id, "there are entries but no account")
            self._stranger = user_id
        return None

    def _follow(self, account: AccountState, entry: Document) -> None:
        self._sequence += 1
        if entry["sequence"] != self._sequence:
            raise _damaged(account.user_id, f"there is no entry {self._sequence}")
        self._balances[entry.get("app_id", 0)] = entry.get("balance_after", 0)

    def _next_account(self) -> None:
        """Check that the history of the account is complete, and go to the next one."""
        account = self._account
        if account is not None:
            if self._sequence != account.revision:
                raise _damaged(account.user_id, f"there is no entry {self._sequence + 1}")
            if any(self._balances.get(app) != left for app, left in account.balances.items()):
                raise _damaged(account.user_id, "a balance differs from that of its last entry")
        self._account = next(self._accounts, None)
        self._sequence, self._balances = 0, {}
        if self._account is not None and self._account.user_id == self._after.user_id:
            # The balances of the entries before are not known here.
            self._sequence, self._balances = self._after.sequence, dict(self._account.balances)


def _check_place(document: Document) -> None:
    if not all(isinstance(document.get(name), int) for name in ("user_id", "sequence")):
        raise _damaged(0, f"the document {document.get('_id')} has no valid user or sequence")


def _damaged(user_id: int, fault: str) -> LedgerDamaged:
    return LedgerDamaged(
        f"The ledger does not add up for user {user_id}: {fault}. No backup was completed. Copy the"
        " database with MongoDB's tools, then run credit-server verify."
    )
