"""What must always hold in the ledger."""


class InvariantViolated(Exception):
    """The ledger is in a state that its rules exclude. This is a bug, never the caller's fault."""


def invariant(condition: bool, sentence: str) -> None:
    """Raise an error if a condition that must always hold is false.

    Unlike `assert`, `python -O` does not remove it.

    Args:
        condition: The condition.
        sentence: What it means, for the log.

    Raises:
        InvariantViolated: The condition is false. Nothing was written: the caller aborts its
            transaction of the store.
    """
    if not condition:
        raise InvariantViolated(sentence)
