"""`DirectoryService`, as a client sees it on the wire."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from credit_models import (
    DirectoryUser,
    FindUserRequest,
    FindUserResponse,
    ResolveUserRequest,
    ResolveUserResponse,
)
from credit_server.store.memory import MemoryStore
from credit_server.store.port import USER_IDS_FROM, Conflict
from credit_server.store.port import DirectoryUser as StoredUser
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpclib.const import Status

from tests.server.callers import WireCaller, open_wire, reason_of
from tests.server.clocks import NOON, Clocks
from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.requests import request_of

UUID = "3f2c9a5e-6d1b-4c8e-9f27-0a5b8d3e71c4"
FIRST = DirectoryUser(user_id=USER_IDS_FROM, app_id=1, external_id=UUID, created_at=NOON)


@pytest.fixture
async def caller() -> AsyncIterator[WireCaller]:
    async with open_wire(clock=Clocks().clock()) as caller:
        yield caller


async def resolve(caller: WireCaller, name: str = UUID, app_id: int = 1) -> ResolveUserResponse:
    request = ResolveUserRequest(app_id=app_id, external_id=name)
    return (await caller.call("ResolveUser", request)).message(ResolveUserResponse)


# Any: the fields of requests have many types.
async def find(caller: WireCaller, **fields: Any) -> DirectoryUser | None:
    answer = await caller.call("FindUser", FindUserRequest(**fields))
    return answer.message(FindUserResponse).user


async def test_a_new_user_gets_a_number_once(caller: WireCaller) -> None:
    assert await resolve(caller) == ResolveUserResponse(user=FIRST, created=True)
    assert await resolve(caller) == ResolveUserResponse(user=FIRST, created=False)


async def test_calls_at_the_same_time_get_one_number(caller: WireCaller) -> None:
    answers = await asyncio.gather(*(resolve(caller) for _ in range(20)))
    assert {each.user.user_id for each in answers if each.user} == {
        answers[0].user.user_id if answers[0].user else 0
    }
    assert sum(each.created for each in answers) == 1


async def test_a_user_is_found_both_ways(caller: WireCaller) -> None:
    await resolve(caller)
    assert await find(caller, app_id=1, external_id=UUID) == FIRST
    assert await find(caller, user_id=USER_IDS_FROM) == FIRST


async def test_upper_and_lower_case_differ(caller: WireCaller) -> None:
    first, second = await resolve(caller, "ada"), await resolve(caller, "Ada")
    assert first.user != second.user
    assert second.created


async def test_a_number_with_credits_is_not_given(caller: WireCaller) -> None:
    for number in (USER_IDS_FROM, USER_IDS_FROM + 1):
        await caller.write("AddCredits", user_id=number)
    answer = await resolve(caller)
    assert answer.user is not None
    assert answer.user.user_id == USER_IDS_FROM + 2


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"user_id"}),
        ({"user_id": 7, "app_id": 1}, {"app_id"}),
        ({"user_id": 7, "external_id": "u"}, {"external_id"}),
        ({"app_id": 1}, {"external_id"}),
        ({"external_id": "u"}, {"app_id"}),
        ({"app_id": 1, "external_id": "a\n"}, {"external_id"}),
    ],
)
async def test_a_search_names_one_user(
    caller: WireCaller, fields: dict[str, Any], expected: set[str]
) -> None:
    answer = await caller.call("FindUser", FindUserRequest(**fields))
    assert answer.status is Status.INVALID_ARGUMENT
    (bad,) = (each for each in answer.details if isinstance(each, BadRequest))
    assert {violation.field for violation in bad.field_violations} == expected


@pytest.mark.parametrize("name", ["", "x" * 129, " u", "u\u200b", "e\u0301"])
async def test_an_external_id_is_an_identifier(caller: WireCaller, name: str) -> None:
    answer = await caller.call("ResolveUser", ResolveUserRequest(app_id=1, external_id=name))
    assert (answer.status, reason_of(answer)) == (Status.INVALID_ARGUMENT, "INVALID_FIELD")


@pytest.mark.parametrize("fields", [{"app_id": 1, "external_id": "u-8"}, {"user_id": 8}])
async def test_an_absent_user_is_named(caller: WireCaller, fields: dict[str, Any]) -> None:
    answer = await caller.call("FindUser", FindUserRequest(**fields))
    assert (answer.status, reason_of(answer)) == (Status.NOT_FOUND, "USER_NOT_FOUND")
    (info,) = (each for each in answer.details if isinstance(each, ErrorInfo))
    assert info.metadata["user"] == fields.get("external_id", "8")


async def test_each_app_has_a_directory_of_its_own(caller: WireCaller) -> None:
    first, second = await resolve(caller), await resolve(caller, app_id=2)
    assert first.user is not None
    assert second.user is not None
    assert second.user.user_id != first.user.user_id
    assert await find(caller, app_id=2, external_id=UUID) == second.user


async def test_an_identity_does_not_see_the_users_of_other_apps() -> None:
    identities = {
        name: replace(EVERYTHING, name=name, apps=frozenset({app}))
        for app, name in ((1, "one"), (2, "two"))
    }
    async with open_wire(authenticator=FakeAuthenticator(identities)) as opened:
        one, two = WireCaller(opened.wire, "one"), WireCaller(opened.wire, "two")
        own = (await resolve(one)).user
        assert own is not None
        hidden, absent = [
            await two.call("FindUser", FindUserRequest(user_id=number))
            for number in (own.user_id, 9)
        ]
        assert (hidden.status, hidden.sentence) == (absent.status, absent.sentence)
        # The same text is a new user: nothing shows that app 1 has it.
        assert (await resolve(two, app_id=2)).created
        for call in ("ResolveUser", "FindUser"):
            assert reason_of(await two.call(call, request_of(call))) == "APP_NOT_ALLOWED"


async def test_a_number_that_is_taken_is_skipped() -> None:
    """The counter can be behind after a restore of the database."""
    store = MemoryStore()
    for at in range(3):
        taken = StoredUser(
            user_id=USER_IDS_FROM + at, app_id=1, external_id=f"taken-{at}", created_at=NOON
        )
        await store.add_user(taken)
    async with open_wire(store) as caller:
        answer = await resolve(caller)
    assert answer.user is not None
    assert answer.user.user_id == USER_IDS_FROM + 3


class _Contested(MemoryStore):
    """Rejects each new user."""

    async def add_user(self, user: StoredUser) -> StoredUser:
        raise Conflict("the number is taken")


async def test_the_attempts_to_give_a_number_have_an_end() -> None:
    async with open_wire(_Contested()) as caller:
        answer = await caller.call("ResolveUser", request_of("ResolveUser"))
    assert (answer.status, reason_of(answer)) == (Status.UNAVAILABLE, "STORE_UNAVAILABLE")
