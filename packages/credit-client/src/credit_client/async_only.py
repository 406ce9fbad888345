"""Reject `with` where `async with` is required, with a message that names the alternatives."""

from typing import TYPE_CHECKING, Never


class AsyncOnly:
    """A context manager for `async with` only.

    The methods are hidden from type checkers, so type checkers reject `with` too.
    """

    if not TYPE_CHECKING:

        def __enter__(self) -> Never:
            """Reject `with`.

            Raises:
                TypeError: Always.
            """
            raise TypeError(
                f"{type(self).__name__} has no `with` block: use `async with`,"
                " or credit_client.sync.CreditClient"
            )

        def __exit__(self, *error: object) -> None:
            """Do nothing. Python requires this method before it calls `__enter__`."""
