"""What keeps the gate from giving a verdict."""


class GateError(Exception):
    """There is no verdict: the contract does not compile, or the gate was asked for nonsense.

    The message is for people and says what to mend.
    """
