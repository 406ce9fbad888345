"""Why there is no verdict."""


class CheckError(Exception):
    """There is no verdict: the contract does not compile, or an argument is invalid.

    The message is for people and says what to fix.
    """
