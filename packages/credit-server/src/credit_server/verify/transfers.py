"""Compare the two sides of transfers, which can be in the histories of two users."""

from collections.abc import Callable

from credit_models.ledger import Kind, Transaction

from credit_server.store.verification import Verification
from credit_server.verify.findings import Code, Finding

Add = Callable[[Finding], None]

# The entries that are compared together.
_BATCH = 500


class Transfers:
    """Collects entries of transfers, and compares them some at a time."""

    def __init__(self, reader: Verification, add: Add) -> None:
        self._reader = reader
        self._add = add
        self._waiting: list[Transaction] = []

    def add(self, entry: Transaction) -> None:
        """Add a TRANSFER_OUT or TRANSFER_IN."""
        self._waiting.append(entry)
        if len(self._waiting) == _BATCH:
            self.flush()

    def flush(self) -> None:
        """Compare what was added."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        related = self._reader.entries({entry.details.related_id for entry in waiting})
        outs = [entry for entry in waiting if entry.kind is Kind.TRANSFER_OUT]
        targets = {
            found.user_id for entry in outs if (found := related.get(entry.details.related_id))
        }
        added = self._reader.transferred([entry.id for entry in outs], targets) if outs else {}
        for entry in waiting:
            other = related.get(entry.details.related_id)
            wanted = Kind.TRANSFER_IN if entry.kind is Kind.TRANSFER_OUT else Kind.TRANSFER_OUT
            if other is None or other.kind is not wanted:
                what = "nothing" if other is None else other.kind.name
                self._fault(entry, f"refers to {entry.details.related_id}, which is {what}")
            elif entry.kind is Kind.TRANSFER_OUT:
                self._compare(entry, other, added[entry.id].credits if entry.id in added else 0)

    def _compare(self, out: Transaction, first: Transaction, added: int) -> None:
        if first.details.related_id != out.id:
            self._fault(out, f"refers to {first.id}, which is of another transfer")
        elif added != out.credits:
            self._fault(out, f"takes {out.credits}, and its other side adds {added}")

    def _fault(self, entry: Transaction, found: str) -> None:
        self._add(
            Finding(
                code=Code.TRANSFER,
                found=f"{entry.kind.name} {found}",
                user_id=entry.user_id,
                app_id=entry.app_id,
                sequence=entry.sequence,
            )
        )
