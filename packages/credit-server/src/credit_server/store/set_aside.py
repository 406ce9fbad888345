"""Documents that work on a queue leaves out, because they cannot be read or changed.

One such document must not stop the others, which belong to other users and apps.
"""

from time import monotonic

from pydantic import ValidationError

from credit_server.store.errors import report, unreadable
from credit_server.store.port import Unreadable

# After this time a document is read again: an operator may have corrected it.
_SECONDS = 3600.0


class SetAside:
    """The ids of these documents in a collection.

    They are in memory: the validator rejects every update of a document that is not valid, and to
    bypass it takes a privilege that the role readWrite does not have.
    """

    def __init__(self, noun: str) -> None:
        """Set nothing aside.

        Args:
            noun: What a document of the collection is, for the operator.
        """
        self._noun = noun
        self._ids: list[object] = []
        self._until = 0.0

    def ids(self) -> list[object]:
        """Return the ids of the documents that are to be left out now."""
        if monotonic() >= self._until:
            self._ids, self._until = [], monotonic() + _SECONDS
        return self._ids

    def add(self, id_: object, error: ValidationError | None = None) -> None:
        """Leave a document out for an hour at most, and log that.

        Args:
            id_: Its id.
            error: Why it cannot be read; None: its collection's validator rejects a change.
        """
        why = "its validator rejects it" if error is None else unreadable(error)
        self._ids.append(id_)
        report(Unreadable(f"the {self._noun} {id_} is left out: {why}"))
