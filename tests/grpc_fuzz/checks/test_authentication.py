"""A server that does not ask who calls is found out, and one that is busy is not blamed."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from grpc_fuzz.checks.authentication import CREDENTIALS_ACCEPTED, IGNORED_AUTH
from grpc_fuzz.credentials import Credentials
from grpc_fuzz.model import Case, Context, Finding, Presented, Reply, WireScript

from tests.grpc_fuzz.protocols import features
from tests.grpc_fuzz.test_proof import fuzz_shop

SCHEMA = features()
ONE = SCHEMA.method("/features.v1.Features/One")
CREDENTIALS = Credentials(token="abc", expired="old")
SOUND = Case(method=ONE, phase="fuzzing", positive=True, requests=(b"",))
UNSOUND = Case(method=ONE, phase="fuzzing", positive=False, requests=(b"",))
WIRE = Case(
    method=ONE, phase="wire", positive=None, requests=(), wire=WireScript(steps=()),
    expected=frozenset({"OK"}),
)  # fmt: skip


class Server:
    """Answers calls with bad credentials as it is told, and notes them."""

    def __init__(
        self,
        answers: Mapping[str, str | None] = MappingProxyType({}),
        *,
        credentials: Credentials | None = CREDENTIALS,
    ) -> None:
        self.answers = answers
        self.asked: list[Presented] = []
        self.context = Context(schema=SCHEMA, send=self._send, credentials=credentials)

    def judge(self, case: Case, status: str | None) -> str | None:
        """What the check says of a call with good credentials that was answered so."""
        if not IGNORED_AUTH.applies(case, self.context):
            return None
        found = IGNORED_AUTH.run(case, Reply(status=status), self.context)
        return found.cause if isinstance(found, Finding) else found

    def _send(self, case: Case) -> Reply:
        self.asked.append(case.presented)
        return Reply(status=self.answers.get(case.presented, "UNAUTHENTICATED"))


def test_a_call_is_repeated_with_everything_that_proves_nothing() -> None:
    server = Server()

    assert server.judge(SOUND, "OK") is None
    assert server.asked == ["missing", "forged", "expired"]


@pytest.mark.parametrize("status", ["OK", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED"])
@pytest.mark.parametrize("presented", ["missing", "forged", "expired"])
def test_any_other_answer_than_unauthenticated_is_a_failure(presented: str, status: str) -> None:
    for case in (SOUND, UNSOUND):
        cause = Server({presented: status}).judge(case, "OK")
        assert cause is not None
        assert cause.startswith(f"{status} instead of UNAUTHENTICATED")


def test_a_refusal_for_its_form_may_not_come_before_the_question_who_calls() -> None:
    assert Server({"missing": "INVALID_ARGUMENT"}).judge(UNSOUND, "INVALID_ARGUMENT") is not None


@pytest.mark.parametrize("status", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", None])
def test_a_server_that_is_busy_is_not_judged(status: str | None) -> None:
    busy = {"missing": status, "forged": status, "expired": status}
    assert Server(busy).judge(SOUND, "OK") is None


@pytest.mark.parametrize(
    "status", ["UNAUTHENTICATED", "PERMISSION_DENIED", "UNAVAILABLE", "RESOURCE_EXHAUSTED", None]
)
def test_a_call_that_says_nothing_is_not_repeated(status: str | None) -> None:
    server = Server({"missing": "OK"})

    assert server.judge(SOUND, status) is None
    assert server.asked == []


def test_what_breaks_the_protocol_may_be_refused_before_anybody_asks_who_calls() -> None:
    assert Server({"missing": "INTERNAL"}).judge(WIRE, "INTERNAL") is None
    assert Server({"missing": "INTERNAL"}).judge(WIRE, "OK") is None
    for status in ("OK", "NOT_FOUND"):
        assert Server({"missing": status}).judge(WIRE, status) is not None


def test_a_public_method_and_a_run_without_credentials_are_not_judged() -> None:
    public = Credentials(token="abc", public=("*/One",))

    assert Server({"missing": "OK"}, credentials=public).judge(SOUND, "OK") is None
    assert Server({"missing": "OK"}, credentials=None).judge(SOUND, "OK") is None


def test_credentials_that_the_server_does_not_take_are_told() -> None:
    context = Server().context
    refused = Reply(status="UNAUTHENTICATED")

    assert CREDENTIALS_ACCEPTED.applies(SOUND, context)
    assert CREDENTIALS_ACCEPTED.run(SOUND, refused, context) is not None
    assert CREDENTIALS_ACCEPTED.run(SOUND, Reply(status="NOT_FOUND"), context) is None
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
def test_a_server_that_takes_bad_credentials_is_found_out(
    bug: str, words: str, tmp_path: Path
) -> None:
    (failure,) = fuzz_shop(tmp_path, bug, check="ignored_auth", phases=("coverage",)).failures

    assert failure.cause.endswith(words)
    assert failure.case.presented != "valid"


def test_the_wire_phase_finds_a_method_that_asks_nobody(tmp_path: Path) -> None:
    outcome = fuzz_shop(
        tmp_path, "ignored_auth", check="ignored_auth", phases=("wire",), include_methods=("Get",)
    )

    assert len(outcome.failures) == 1
