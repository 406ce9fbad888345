"""Decides whose fault unforeseen errors are: a command's, a user's, or none of the batch's."""

_ALONE_MAX = 3
"""How many commands in a row fail alone, with no success in between, before the fault is theirs no
longer. A bug or a bad document fails one command or one user. What fails three users fails all."""


class Suspicion:
    """Follows the commands of one batch that fail alone, each in a transaction of its own."""

    def __init__(self) -> None:
        self._users: list[int] = []

    def succeeded(self) -> None:
        """Note that an attempt had a result, so the store and this program work."""
        self._users.clear()

    def failed_alone(self, user_id: int) -> None:
        """Note that a command failed although nothing else was tried with it."""
        self._users.append(user_id)

    def hits_user(self, user_id: int) -> bool:
        """Return whether all commands of this user are expected to fail."""
        return self._users.count(user_id) >= _ALONE_MAX

    @property
    def hits_all(self) -> bool:
        """Whether everything is expected to fail, whatever it is."""
        return len(set(self._users)) >= _ALONE_MAX
