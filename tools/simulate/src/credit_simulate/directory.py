"""Resolve text ids to numbers concurrently, and check that each id has one unique number."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from credit_client import methods
from credit_client.call import Caller
from credit_client.errors import CreditError
from credit_models import DirectoryUser

from credit_simulate.server import World

Name = tuple[int, str]
"""The app and the text id of a user."""

_TEXTS = ("ann", "bob", "cy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """The answer to a request for a number: the user, the number, and whether it is new."""

    name: Name
    number: int
    created: bool


class Names:
    """Resolves text ids, and keeps the answers."""

    def __init__(self, world: World, connect: Callable[[], Caller]) -> None:
        """Prepare to resolve.

        Args:
            world: Has the trace.
            connect: Returns a client of the SDK.
        """
        self._world = world
        self._connect = connect
        self._resolved: list[Resolved] = []
        self._found: dict[Name, int] = {}

    async def resolve(self, random: Random, app_id: int) -> None:
        """Resolve one of a few text ids in an app with two callers at the same time."""
        name = app_id, random.choice(_TEXTS)
        await asyncio.gather(self._resolve(name), self._resolve(name))

    async def _resolve(self, name: Name) -> None:
        """Resolve a text id; a call that fails proves nothing."""
        values = {"app_id": name[0], "external_id": name[1]}
        try:
            answer, _ = await self._connect().unary(methods.RESOLVE_USER, values)
        except CreditError:
            return
        number = _number(answer.reply.user)
        resolved = Resolved(name=name, number=number, created=answer.reply.created)
        self._world.trace("directory", resolved)
        self._resolved.append(resolved)

    async def find_all(self) -> None:
        """Find every text id that was resolved."""
        for name in dict.fromkeys(each.name for each in self._resolved):
            values = {"app_id": name[0], "external_id": name[1]}
            answer, _ = await self._connect().unary(methods.FIND_USER, values)
            self._found[name] = _number(answer.reply.user)

    def findings(self) -> Iterator[str]:
        """Yield text ids with several numbers, and numbers with several text ids."""
        numbers: dict[Name, set[int]] = {name: {found} for name, found in self._found.items()}
        for each in self._resolved:
            numbers[each.name].add(each.number)
        for name, some in numbers.items():
            if len(some) > 1:
                yield f"directory: {name} has the numbers {sorted(some)}"
            created = [each for each in self._resolved if each.name == name and each.created]
            if len(created) > 1:
                yield f"directory: {name} was created {len(created)} times"
        if len(set(self._found.values())) < len(self._found):
            yield f"directory: users share a number: {self._found}"


def _number(user: DirectoryUser | None) -> int:
    assert user is not None  # noqa: S101 - for the type checker
    return user.user_id
