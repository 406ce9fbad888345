"""The calls about users whom an app identifies by text, such as a UUID."""

from abc import ABC, abstractmethod

from credit_models import DirectoryUser

from credit_client.call import Caller
from credit_client.methods import FIND_USER, RESOLVE_USER


class Users(ABC):
    """Assigns numbers to users, and finds users. Needs a server of 0.4.0 or later.

    All other methods also accept a text as `user_id`, and then make these calls themselves.
    """

    @property
    @abstractmethod
    def _open_caller(self) -> Caller:
        """What makes the calls of the open client."""

    async def resolve_user(
        self, *, app_id: int, external_id: str, timeout_seconds: float | None = None
    ) -> DirectoryUser:
        """Return the user with an external id in an app, and assign a number if there is none.

        `add` and `grant` also do this for a new user. The identity needs the scope
        `credits:issue`.

        Args:
            app_id: The app whose directory has the user.
            external_id: The user's id in that app, such as a UUID: 1 to 128 characters. Upper and
                lower case differ.
            timeout_seconds: The time for the whole call; None for the client's.

        Returns:
            The user. All calls return the same `user_id`.

        Raises:
            UserIdsExhausted: No number is left.
        """
        values = {"app_id": app_id, "external_id": external_id}
        return await self._open_caller.directory.user(RESOLVE_USER, values, timeout_seconds)

    async def find_user(
        self,
        *,
        user_id: int | None = None,
        app_id: int | None = None,
        external_id: str = "",
        timeout_seconds: float | None = None,
    ) -> DirectoryUser:
        """Return a user of the directory: by the number, or by the app and the external id.

        Args:
            user_id: The number. Without it, the next two arguments are needed.
            app_id: The app whose directory has the user.
            external_id: The user's id in that app.
            timeout_seconds: The time for the whole call; None for the client's.

        Raises:
            UserNotFound: The directory has no such user that the caller may read.
        """
        values = {"user_id": user_id, "app_id": app_id, "external_id": external_id}
        return await self._open_caller.directory.user(FIND_USER, values, timeout_seconds)
