"""The calls of `DirectoryService`: the numbers of users whom apps identify by text."""

from collections.abc import Callable, Coroutine
from typing import Any

from credit_models import (
    DirectoryServiceBase,
    FindUserRequest,
    FindUserResponse,
    ResolveUserRequest,
    ResolveUserResponse,
)
from credit_models import DirectoryUser as DirectoryUserMessage
from credit_models.translation.refusals import user_ids_exhausted, user_not_found
from grpclib import const

from credit_server.access import authorize
from credit_server.access.audit import AuditLog, ResolvedUser
from credit_server.api import errors
from credit_server.api.commands import validate
from credit_server.api.reads import Reads
from credit_server.commit import Clock
from credit_server.grpc.call import Call
from credit_server.store.port import USER_IDS_FROM, Conflict, DirectoryUser, Store

# The most attempts to assign a number to a user. A number is already taken only if the directory
# was restored from a backup without its counter.
_ATTEMPTS_MAX = 5

_ResolveCall = Call[ResolveUserRequest, ResolveUserResponse]
_FindCall = Call[FindUserRequest, FindUserResponse]


class DirectoryService(DirectoryServiceBase):
    """Serves the contract on a store."""

    def __init__(
        self, store: Store, clock: Clock, audit: AuditLog, *, user_ids_from: int = USER_IDS_FROM
    ) -> None:
        """Prepare to serve.

        Args:
            store: Keeps the directory.
            clock: The clock of the server.
            audit: Writes a line for each resolved user and each denial.
            user_ids_from: The least number that a user gets, 1 to 2**32 - 1.
        """
        self._store = store
        self._clock = clock
        self._audit = audit
        self._reads = Reads(store, clock, audit)
        self._user_ids_from = user_ids_from

    def __mapping__(self) -> dict[str, const.Handler]:
        """Map the contract's paths to handlers that take the call, not only its message.

        If a call of the contract has no handler here, it is a KeyError when the server is made.
        """
        # Any: each handler takes a call of its own types, which grpclib's Handler does not have.
        handlers: dict[str, Callable[[Call[Any, Any]], Coroutine[Any, Any, None]]] = {
            "ResolveUser": self._resolve_user,
            "FindUser": self._find_user,
        }
        return {
            path: handler._replace(func=handlers[path.rpartition("/")[2]])
            for path, handler in super().__mapping__().items()
        }

    async def _resolve_user(self, call: _ResolveCall) -> None:
        request, identity = await call.recv_request(), authorize.identity_of(call)
        with self._audit.write(call, identity, request) as audited:
            authorize.check_app(identity, request)
            validate(request)
            resolved = await audited.complete(self._resolve(request), lambda user: user)
        await call.send_answer(
            ResolveUserResponse(user=_message(resolved.user), created=resolved.created)
        )

    async def _resolve(self, request: ResolveUserRequest) -> ResolvedUser:
        found = await self._store.find_user((request.app_id, request.external_id))
        if found is not None:
            return ResolvedUser(found, created=False)
        for _ in range(_ATTEMPTS_MAX - 1):
            try:
                return await self._create(request)
            except Conflict:
                continue
        return await self._create(request)

    async def _create(self, request: ResolveUserRequest) -> ResolvedUser:
        number = await self._store.next_user_id(self._user_ids_from)
        if number is None:
            raise errors.status_of(*user_ids_exhausted())
        given = DirectoryUser(
            user_id=number,
            app_id=request.app_id,
            external_id=request.external_id,
            created_at=self._clock.time(),
        )
        stored = await self._store.add_user(given)
        return ResolvedUser(stored, created=stored.user_id == given.user_id)

    async def _find_user(self, call: _FindCall) -> None:
        request = await self._reads.request(call)
        if request.user_id is not None:
            found = await self._store.find_user(request.user_id)
        else:
            # The contract requires both without a number: `validate` has checked it.
            found = await self._store.find_user((request.app_id or 0, request.external_id))
        apps = authorize.visible_apps(authorize.identity_of(call))
        if found is None or not (apps is None or found.app_id in apps):
            name = request.external_id if request.user_id is None else str(request.user_id)
            raise errors.status_of(*user_not_found(name))
        await call.send_answer(FindUserResponse(user=_message(found)))


def _message(user: DirectoryUser) -> DirectoryUserMessage:
    return DirectoryUserMessage(
        user_id=user.user_id,
        app_id=user.app_id,
        external_id=user.external_id,
        created_at=user.created_at,
    )
