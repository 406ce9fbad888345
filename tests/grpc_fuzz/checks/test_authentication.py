"""The checks of authentication find a server without it, and ignore an overloaded one."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from grpc_fuzz.checks.authentication import CREDENTIALS_ACCEPTED, IGNORED_AUTH
from grpc_fuzz.checks.check import Context, Finding
from grpc_fuzz.credentials import Credentials
from grpc_fuzz.model import Case, Presented, Reply, WireScript

from tests.grpc_fuzz.contracts import features_schema
from tests.grpc_fuzz.shop_server import fuzz_shop

SCHEMA = features_schema()
ONE = SCHEMA.method("/features.v1.Features/One")
CREDENTIALS = Credentials(token="abc", expired="old")
VALID = Case(method=ONE, phase="fuzzing", positive=True, requests=(b"",))
INVALID = Case(method=ONE, phase="fuzzing", positive=False, requests=(b"",))
WIRE = Case(
    method=ONE, phase="wire", positive=None, requests=(), wire=WireScript(steps=()),
    expected=frozenset({"OK"}),
)  # fmt: skip


class Server:
    """Returns the given statuses for invalid credentials, and records the calls."""

    def __init__(
        self,
        answers: Mapping[str, str | None] = MappingProxyType({}),
        *,
        credentials: Credentials | None = CREDENTIALS,
    ) -> None:
        self.answers = answers
        self.presented: list[Presented] = []
        self.context = Context(schema=SCHEMA, send=self._send, credentials=credentials)

    def judge(self, case: Case, status: str | None) -> str | None:
        """Return the result of the check for a valid call that ended with a status."""
        if not IGNORED_AUTH.applies(case, self.context):
            return None
        found = IGNORED_AUTH.run(case, Reply(status=status), self.context)
        return found.cause if isinstance(found, Finding) else found

    def _send(self, case: Case) -> Reply:
        self.presented.append(case.presented)
        return Reply(status=self.answers.get(case.presented, "UNAUTHENTICATED"))


def test_a_call_is_repeated_with_all_invalid_credentials() -> None:
    server = Server()

    assert server.judge(VALID, "OK") is None
    assert server.presented == ["missing", "forged", "expired"]


@pytest.mark.parametrize("status", ["OK", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED"])
@pytest.mark.parametrize("presented", ["missing", "forged", "expired"])
def test_any_status_except_unauthenticated_is_a_failure(presented: str, status: str) -> None:
    for case in (VALID, INVALID):
        cause = Server({presented: status}).judge(case, "OK")
        assert cause is not None
        assert cause.startswith(f"{status} instead of UNAUTHENTICATED")


def test_an_invalid_request_must_not_be_rejected_before_authentication() -> None:
    assert Server({"missing": "INVALID_ARGUMENT"}).judge(INVALID, "INVALID_ARGUMENT") is not None


@pytest.mark.parametrize("status", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", None])
def test_an_overloaded_server_is_not_judged(status: str | None) -> None:
    overloaded = {"missing": status, "forged": status, "expired": status}
    assert Server(overloaded).judge(VALID, "OK") is None


@pytest.mark.parametrize(
    "status", ["UNAUTHENTICATED", "PERMISSION_DENIED", "UNAVAILABLE", "RESOURCE_EXHAUSTED", None]
)
def test_a_call_that_needed_no_credentials_is_not_repeated(status: str | None) -> None:
    server = Server({"missing": "OK"})

    assert server.judge(VALID, status) is None
    assert server.presented == []


def test_a_protocol_violation_may_be_rejected_before_authentication() -> None:
    assert Server({"missing": "INTERNAL"}).judge(WIRE, "INTERNAL") is None
    assert Server({"missing": "INTERNAL"}).judge(WIRE, "OK") is None
    for status in ("OK", "NOT_FOUND"):
        assert Server({"missing": status}).judge(WIRE, status) is not None


def test_a_public_method_and_a_run_without_credentials_are_not_judged() -> None:
    public = Credentials(token="abc", public=("*/One",))

    assert Server({"missing": "OK"}, credentials=public).judge(VALID, "OK") is None
    assert Server({"missing": "OK"}, credentials=None).judge(VALID, "OK") is None


def test_valid_credentials_that_the_server_rejects_are_reported() -> None:
    context = Server().context
    refused = Reply(status="UNAUTHENTICATED")

    assert CREDENTIALS_ACCEPTED.applies(VALID, context)
    assert CREDENTIALS_ACCEPTED.run(VALID, refused, context) is not None
    assert CREDENTIALS_ACCEPTED.run(VALID, Reply(status="NOT_FOUND"), context) is None
    assert not CREDENTIALS_ACCEPTED.applies(WIRE, context)


@pytest.mark.parametrize(
    ("bug", "words"),
    [
        ("takes_any_token", "with forged credentials"),
        ("asks_no_signature", "with forged credentials"),
        ("takes_unsigned_tokens", "with a token that says it needs no signature"),
        ("never_looks_at_the_clock", "with an expired token"),
    ],
)
def test_a_server_that_accepts_invalid_credentials_is_found(
    bug: str, words: str, tmp_path: Path
) -> None:
    (failure,) = fuzz_shop(tmp_path, bug, check="ignored_auth", phases=("coverage",)).failures

    assert failure.cause.endswith(words)
    assert failure.case.presented != "valid"


def test_the_wire_phase_finds_a_method_without_authentication(tmp_path: Path) -> None:
    outcome = fuzz_shop(
        tmp_path, "ignored_auth", check="ignored_auth", phases=("wire",), include_methods=("Get",)
    )

    assert len(outcome.failures) == 1
