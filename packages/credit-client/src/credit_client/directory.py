"""Look up the numbers of users whom an app identifies by text, and keep them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import betterproto2
from cachetools import LRUCache
from credit_models import CreditRequest, DirectoryUser, GrantCreditsRequest
from credit_models.constraints import Violation, describe
from grpclib.const import Status

from credit_client.errors import InvalidField, ProtocolMismatch, UserNotFound
from credit_client.methods import FIND_USER, RESOLVE_USER
from credit_client.request import Values, build, given_request_id
from credit_client.transport import Answer, Method

# The most numbers that a client keeps. One takes about 300 bytes.
_KNOWN_MAX = 50_000

# How many texts are remembered as valid.
_CHECKED_MAX = 10_000

# The fields that name a user, each with the fields of the app whose directory has the user.
_FIELDS: Mapping[str, Sequence[str]] = {
    "user_id": ("app_id",),
    "to_user_id": ("to_app_id", "app_id"),
}

# The writes that give credits to a user who may be new. All others need a user with credits.
_CREATING = (CreditRequest, GrantCreditsRequest)

# Any valid number, until the user's own is known.
_PLACEHOLDER = 1


class Name(NamedTuple):
    """A user whom a request identifies by text.

    Attributes:
        field: The field of the request that takes the number.
        app_id: The app whose directory has the user.
        external_id: The text.
        create: Whether the user gets a number if there is none.
    """

    field: str
    app_id: int
    external_id: str
    create: bool


def build_named(
    message_type: type[betterproto2.Message], values: Values, users_app_id: int | None
) -> tuple[Any, Sequence[Name]]:
    """Build a valid request, as `request.build` does. Users may be named by text.

    Any: an instance of the class.

    Args:
        message_type: The request's class.
        values: A value for each field.
        users_app_id: The app whose directory has all users; None: that of the request's app.

    Returns:
        The request, and the users whose numbers it does not have yet.

    Raises:
        InvalidField: As `request.build` raises, and if a text is no external id or has no app.
        TypeError: As `request.build` raises.
    """
    texts = {field: text for field in _FIELDS if isinstance(text := values.get(field), str)}
    if not texts:
        return build(message_type, values), ()
    request = build(message_type, {**values, **dict.fromkeys(texts, _PLACEHOLDER)})
    creates = isinstance(request, _CREATING) and not values.get("validate_only")
    return request, [
        _name(field, text, _app(field, values, users_app_id), create=creates)
        for field, text in texts.items()
    ]


def _app(field: str, values: Values, users_app_id: int | None) -> int:
    """Return the app whose directory has a user."""
    apps = (users_app_id, *(values.get(name) for name in _FIELDS[field]))
    for app_id in apps:
        if isinstance(app_id, int):
            return app_id
    raise _invalid("app_id", f"must be set where {field} is text, or set users_app_id")


# The check takes 10 µs, a quarter of the SDK's own time for a call.
@lru_cache(maxsize=_CHECKED_MAX)
def _name(field: str, text: str, app_id: int, *, create: bool) -> Name:
    try:
        build(RESOLVE_USER.request_type, {"app_id": app_id, "external_id": text})
    except InvalidField as error:
        raise _invalid(field, error.violations[0].description) from None
    return Name(field, app_id, text, create)


def _invalid(field: str, description: str) -> InvalidField:
    violation = Violation(field=field, description=description)
    return InvalidField(
        describe([violation]), violations=[violation], request_id=given_request_id()
    )


# Makes a call with a timeout. Any: each call has messages of its own.
_Unary = Callable[[Method[Any, Any], Values, float | None], Awaitable[tuple[Answer[Any], str]]]


class Directory:
    """Looks up the numbers of users, and keeps them, because a number never changes."""

    def __init__(self, unary: _Unary) -> None:
        """Remember nothing yet.

        Args:
            unary: Makes a call.
        """
        self._unary = unary
        self._known: LRUCache[tuple[int, str], int] = LRUCache(_KNOWN_MAX)

    def known(self, name: Name) -> int | None:
        """Return the number of a user if the client remembers it."""
        return self._known.get((name.app_id, name.external_id))

    async def number(self, name: Name, timeout_seconds: float | None) -> int:
        """Return the number of a user from the server.

        Raises:
            UserNotFound: The user has none, and shall not get one. The message names the app and
                the text, which the server's own message does not contain.
        """
        method = RESOLVE_USER if name.create else FIND_USER
        values = {"app_id": name.app_id, "external_id": name.external_id}
        try:
            return (await self.user(method, values, timeout_seconds)).user_id
        except UserNotFound as error:
            error.message = (
                f"the directory of app {name.app_id} has no user {name.external_id!r}:"
                " `add` and `grant` create the user"
            )
            error.args = (error.message,)
            raise

    async def user(
        self, method: Method[Any, Any], values: Values, timeout_seconds: float | None
    ) -> DirectoryUser:
        """Make a call that returns a user, and remember the number.

        Raises:
            ProtocolMismatch: The answer has no user.
        """
        answer, request_id = await self._unary(method, values, timeout_seconds)
        user: DirectoryUser | None = answer.reply.user
        if user is None:
            raise ProtocolMismatch(
                "the server returned no user", status=Status.INTERNAL, request_id=request_id
            )
        self._known[user.app_id, user.external_id] = user.user_id
        return user
