"""Check a history: by its hashes, by receipts that were kept, and by a signed checkpoint."""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from datetime import timedelta

from credit_models import CreditTransaction, Receipt, TransactionType
from credit_models.entry_hash import GENESIS, HASH_VERSION
from credit_models.hashes import transaction_hash

from credit_client.checkpoint import Checkpoint
from credit_client.errors import Finding, HistoryAltered

_MESSAGES = {
    Finding.CHANGED: "was changed: its hash does not match its fields",
    Finding.CHAIN_BROKEN: (
        "does not follow the one before it: a transaction was removed, inserted or replaced"
    ),
    Finding.OUT_OF_ORDER: "is not in the order of the history",
    Finding.HASH_MISSING: "has no hash, and an earlier one has",
    Finding.VERSION_UNKNOWN: "has a hash of a scheme that this SDK does not know: update the SDK",
    Finding.BALANCE_WRONG: "has a balance that is not the previous balance plus its effect",
    Finding.RECEIPT_DIFFERS: "is not the one that a receipt acknowledged",
    Finding.CHECKPOINT_DIFFERS: (
        "is dated before the checkpoint, which does not cover it: it was inserted later"
    ),
}

# A transaction that the checkpoint does not cover can be dated before it by as much as the clock of
# a server is behind that of the store, and as the retries of a commit last.
_DATED_BEFORE_MAX = timedelta(hours=1)

_WITH_EFFECT = (TransactionType.ADD, TransactionType.USE)


@dataclass(slots=True)
class _Chain:
    """The state of the check for a user in an app.

    Attributes:
        head: The hash of the latest transaction; None: the next one may have any `previous_hash`.
        balance: The balance after it, negative if the user owes credits; None: not known.
        began: Whether a transaction had a hash.
        published: The head in the checkpoint, until a transaction with this hash is added.
    """

    head: bytes | None
    balance: int | None
    began: bool = False
    published: bytes | None = None


class HistoryVerifier:
    """Checks histories, transaction by transaction.

        verifier = HistoryVerifier(receipts=kept, checkpoint=checkpoint)
        async for transaction in credits.transactions(user_id=7, verify=verifier):
            ...

    Or call `add` for each transaction, oldest first, and then `end`. The transactions of several
    users may follow one another or alternate. The check needs all transactions of a user in an app,
    from the first one on.

    Attributes:
        verified: The number of transactions whose hash is right.
        unhashed: The number of transactions without a hash, which precede those with one. They were
            written before the server began to chain the history, and only their balances are
            checked.
    """

    def __init__(
        self,
        *,
        receipts: Iterable[Receipt] = (),
        checkpoint: Checkpoint | None = None,
        after_sequence: int = 0,
    ) -> None:
        """Prepare a check.

        Args:
            receipts: Receipts of writes for the users. Their transactions must be in the histories.
                Receipts up to `after_sequence`, and those of dry runs, are ignored.
            checkpoint: A checkpoint of an app. The histories must have the transactions that it
                covers.
            after_sequence: The histories begin after this `sequence`. The first transaction in each
                app is then not compared with what precedes it.

        Raises:
            ValueError: There are a checkpoint and `after_sequence`. A checkpoint is compared with
                whole histories, because what it covers can precede the first transaction.
        """
        if checkpoint is not None and after_sequence:
            raise ValueError("a checkpoint needs the whole history: leave out after_sequence")
        self.verified = 0
        self.unhashed = 0
        self._receipts: dict[str, list[Receipt]] = {}
        for receipt in receipts:
            if receipt.sequence > after_sequence and not receipt.validated:
                self._receipts.setdefault(receipt.transaction_id, []).append(receipt)
        self._checkpoint = checkpoint
        self._is_whole = not after_sequence
        self._sequences: dict[int, int] = {}
        self._after_sequence = after_sequence
        self._chains: dict[tuple[int, int], _Chain] = {}

    def add(self, transaction: CreditTransaction) -> None:
        """Check the next transaction.

        Raises:
            HistoryAltered: The transaction is not what the server has written, or an earlier one is
                missing.
            ValueError: The checkpoint was loaded without the user.
        """
        user_id = transaction.user_id
        if transaction.sequence <= self._sequences.get(user_id, self._after_sequence):
            raise _altered(Finding.OUT_OF_ORDER, transaction)
        if user_id not in self._sequences:
            self.expect(user_id=user_id)
        chain = self._chain(user_id, transaction.app_id)
        if transaction.hash:
            self._check_hash(chain, transaction)
        elif chain.began:
            raise _altered(Finding.HASH_MISSING, transaction)
        else:
            self.unhashed += 1
        balance = transaction.balance_after - transaction.owed_after
        # Servers before 0.3.0 do not send the effect.
        has_effect = transaction.effect or transaction.type not in _WITH_EFFECT
        if (
            chain.balance is not None
            and has_effect
            and chain.balance + transaction.effect != balance
        ):
            raise _altered(Finding.BALANCE_WRONG, transaction)
        self._check_receipt(transaction)
        chain.balance = balance
        self._sequences[user_id] = transaction.sequence

    def end(self) -> None:
        """Check that nothing is missing at the end of the histories.

        Raises:
            HistoryAltered: A transaction that a receipt acknowledged is missing, or one that the
                checkpoint covers.
            ValueError: No history was compared with the checkpoint. The lists were empty, and the
                numbers of their users are not known.
        """
        receipts = (each for same in self._receipts.values() for each in same)
        missing = min(receipts, key=lambda each: each.sequence, default=None)
        if missing is not None:
            raise HistoryAltered(
                f"the history does not have transaction {missing.sequence}, which a receipt"
                f" acknowledged (id {missing.transaction_id})",
                finding=Finding.RECEIPT_MISSING,
                sequence=missing.sequence,
            )
        if self._checkpoint is not None and not self._chains:
            raise ValueError(
                "the history is empty: call expect(user_id=…) with the user's number, so that the"
                " checkpoint shows whether it should be"
            )
        for (user_id, app_id), chain in self._chains.items():
            if chain.published is not None and self._checkpoint is not None:
                raise HistoryAltered(
                    f"the history of user {user_id} in app {app_id} does not have the transaction"
                    f" that the checkpoint of {self._checkpoint.time:%Y-%m-%d %H:%M} UTC covers:"
                    " transactions up to it were removed or replaced",
                    finding=Finding.CHECKPOINT_DIFFERS,
                    user_id=user_id,
                    app_id=app_id,
                )

    def expect(self, *, user_id: int) -> None:
        """Compare a user with the checkpoint even if the user has no transaction at all."""
        if self._checkpoint is not None:
            self._chain(user_id, self._checkpoint.app_id)

    def _chain(self, user_id: int, app_id: int) -> _Chain:
        chain = self._chains.get((user_id, app_id))
        if chain is None:
            known = self._is_whole
            chain = _Chain(head=GENESIS if known else None, balance=0 if known else None)
            if self._checkpoint is not None and self._checkpoint.app_id == app_id:
                chain.published = self._checkpoint.head(user_id)
            self._chains[user_id, app_id] = chain
        return chain

    def _check_hash(self, chain: _Chain, transaction: CreditTransaction) -> None:
        if transaction.hash[0] != HASH_VERSION:
            raise _altered(Finding.VERSION_UNKNOWN, transaction)
        try:
            unchanged = transaction_hash(transaction) == transaction.hash
        except ValueError:
            unchanged = False
        if not unchanged:
            raise _altered(Finding.CHANGED, transaction)
        if chain.head is not None and transaction.previous_hash != chain.head:
            raise _altered(Finding.CHAIN_BROKEN, transaction)
        self._check_date(chain, transaction)
        chain.head, chain.began = transaction.hash, True
        if chain.published == transaction.hash:
            chain.published = None
        self.verified += 1

    def _check_date(self, chain: _Chain, transaction: CreditTransaction) -> None:
        """Check that a transaction after those that the checkpoint covers is not an earlier one."""
        covering = self._checkpoint
        if covering is None or covering.app_id != transaction.app_id or chain.published is not None:
            return
        created_at = transaction.created_at
        if created_at is None or covering.time - created_at > _DATED_BEFORE_MAX:
            raise _altered(Finding.CHECKPOINT_DIFFERS, transaction)

    def _check_receipt(self, transaction: CreditTransaction) -> None:
        for receipt in self._receipts.pop(transaction.id, ()):
            # A receipt of a server before 0.4.0 has no hash.
            same = not receipt.hash or receipt.hash == transaction.hash
            if not same or receipt.sequence != transaction.sequence:
                raise _altered(Finding.RECEIPT_DIFFERS, transaction)


def _altered(finding: Finding, transaction: CreditTransaction) -> HistoryAltered:
    place = (
        f"transaction {transaction.sequence} of user {transaction.user_id} in app"
        f" {transaction.app_id}"
    )
    return HistoryAltered(
        f"{place} {_MESSAGES[finding]}",
        finding=finding,
        user_id=transaction.user_id,
        app_id=transaction.app_id,
        sequence=transaction.sequence,
    )


async def verified(
    transactions: AsyncGenerator[CreditTransaction, None],
    verifier: HistoryVerifier,
) -> AsyncGenerator[CreditTransaction, None]:
    """Iterate over transactions, and check each before it is returned.

    Args:
        transactions: The transactions, oldest first.
        verifier: Checks them.
    """
    try:
        async for transaction in transactions:
            verifier.add(transaction)
            yield transaction
        verifier.end()
    finally:
        await transactions.aclose()
