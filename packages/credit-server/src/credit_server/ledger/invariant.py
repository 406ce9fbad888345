"""A check for what must never be, which `python -O` cannot strip."""


class InvariantViolated(Exception):
    """The ledger is in a state that its rules exclude: a bug, never the caller's fault."""


def invariant(condition: bool, sentence: str) -> None:
    """Stop at once when what must always hold does not.

    Args:
        condition: What must hold.
        sentence: What it means, for whoever reads the log.

    Raises:
        InvariantViolated: The condition is false. Nothing has been written yet: the caller's
            store transaction is given up.
    """
    if not condition:
        raise InvariantViolated(sentence)
