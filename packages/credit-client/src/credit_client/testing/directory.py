"""The directory of the fake: numbers of users whom apps identify by text."""

import itertools

from credit_models import (
    DirectoryUser,
    FindUserRequest,
    FindUserResponse,
    ResolveUserRequest,
    ResolveUserResponse,
)
from credit_models.ledger import UINT32_MAX
from credit_models.translation.refusals import user_ids_exhausted, user_not_found

from credit_client.testing.ledger import FakeLedger, Refused

# The server's default.
USER_IDS_FROM = 2_000_000_000


class FakeDirectory:
    """All users that have a number."""

    def __init__(self, ledger: FakeLedger, *, user_ids_from: int = USER_IDS_FROM) -> None:
        """Make an empty directory.

        Args:
            ledger: Its clock is used, and numbers with which users have credits are not given.
            user_ids_from: The least number that a user gets.
        """
        self._ledger = ledger
        self._numbers = itertools.count(user_ids_from)
        self._users: dict[int | tuple[int, str], DirectoryUser] = {}

    def resolve(self, request: ResolveUserRequest) -> ResolveUserResponse:
        """Return the user with an external id in an app, and assign a number if there is none.

        Raises:
            Refused: No number is left.
        """
        name = (request.app_id, request.external_id)
        if name in self._users:
            return ResolveUserResponse(user=self._users[name])
        number = next(n for n in self._numbers if not self._ledger.has_history(user_id=n))
        if number > UINT32_MAX:
            raise Refused(*user_ids_exhausted())
        user = DirectoryUser(
            user_id=number,
            app_id=request.app_id,
            external_id=request.external_id,
            created_at=self._ledger.clock.now(),
        )
        self._users[number] = self._users[name] = user
        return ResolveUserResponse(user=user, created=True)

    def find(self, request: FindUserRequest) -> FindUserResponse:
        """Return the user with a number, or with an external id in an app.

        Raises:
            Refused: There is no such user.
        """
        number = request.user_id
        name = (request.app_id or 0, request.external_id) if number is None else number
        if name not in self._users:
            raise Refused(*user_not_found(request.external_id if number is None else str(number)))
        return FindUserResponse(user=self._users[name])
