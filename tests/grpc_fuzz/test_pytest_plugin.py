"""The pytest plugin: tests from a contract with hooks, checks and options."""

from collections.abc import Iterator

import pytest

from tests.grpc_fuzz.shop_server import running_shop

pytest_plugins = ["pytester"]

PREAMBLE = """
import pytest
from grpc_fuzz import Settings, Target, suite
from tests.grpc_fuzz.contracts import SHOP_OPTIONS, image_of

settings = Settings(target=Target(host="localhost", port=1), max_examples=5, idempotency_key="key")
image = image_of("shop.proto")
schema = suite.from_image(image, "server", adapters=(SHOP_OPTIONS,), settings=settings)

@pytest.fixture
def server():
    return "127.0.0.1:{port}"
"""


@pytest.fixture(autouse=True)
def _repository_is_importable(pytester: pytest.Pytester, pytestconfig: pytest.Config) -> None:
    pytester.syspathinsert(pytestconfig.rootpath)


@pytest.fixture
def shop() -> Iterator[str]:
    with running_shop() as port:
        yield PREAMBLE.format(port=port)


def test_every_method_becomes_a_test_and_passes_on_a_correct_server(
    pytester: pytest.Pytester, shop: str
) -> None:
    pytester.makepyfile(
        shop
        + """
@schema.parametrize()
def test_contract(case):
    case.call_and_validate()
"""
    )

    result = pytester.runpytest("-p", "no:asyncio", "-v")

    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*test_contract?shop.v1.Orders/Put? PASSED*"])


def test_credentials_come_from_a_fixture(pytester: pytest.Pytester) -> None:
    with running_shop(token="secret") as port:
        pytester.makepyfile(
            PREAMBLE.format(port=port).replace('"server",', '"server", credentials="credentials",')
            + """
from grpc_fuzz import Credentials

@pytest.fixture
def credentials():
    return Credentials(token="secret")

@schema.parametrize(include=("List",))
def test_contract(case):
    case.call_and_validate()
"""
        )
        result = pytester.runpytest("-p", "no:asyncio")

    result.assert_outcomes(passed=1)


def test_a_failure_names_the_check_and_the_reproducers(pytester: pytest.Pytester) -> None:
    with running_shop("documented_status") as port:
        pytester.makepyfile(
            PREAMBLE.format(port=port)
            + """
@schema.parametrize(include=("List", "Get"))
def test_contract(case):
    case.call_and_validate()
"""
        )
        result = pytester.runpytest("-p", "no:asyncio")

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*documented_status (major): ABORTED is not among*", "*buf curl*"])


def test_fixtures_marks_and_options_work_as_in_other_tests(
    pytester: pytest.Pytester, shop: str
) -> None:
    pytester.makepyfile(
        shop
        + """
seen = []

@pytest.fixture
def notes(request):
    yield request.node.name

@schema.parametrize(include=("Get",))
@pytest.mark.filterwarnings("error")
def test_contract(request, case, notes):
    assert notes == request.node.name
    seen.append(case.case.phase)
    case.call()

def test_count():
    # Three random cases per mode, in addition to those of the coverage phase.
    assert 0 < seen.count("fuzzing") <= 6
"""
    )

    result = pytester.runpytest(
        "-p", "no:asyncio", "--grpc-fuzz-max-examples=3", "--grpc-fuzz-seed=7"
    )

    result.assert_outcomes(passed=2)


def test_hooks_receive_and_change_calls(pytester: pytest.Pytester, shop: str) -> None:
    pytester.makepyfile(
        shop
        + """
import dataclasses

statuses = []

@schema.before_call
def empty(case):
    return dataclasses.replace(case, requests=(b"",), positive=False, twin=None)

@schema.after_call
def note(case, reply):
    statuses.append(reply.status)

@schema.parametrize(include=("Get",))
def test_contract(case):
    case.call_and_validate()

def test_statuses():
    assert set(statuses) == {"INVALID_ARGUMENT"}
"""
    )

    pytester.runpytest("-p", "no:asyncio").assert_outcomes(passed=2)


def test_a_custom_check_runs(pytester: pytest.Pytester, shop: str) -> None:
    pytester.makepyfile(
        shop
        + """
@schema.check()
def has_a_trace_id(case, reply, context):
    "Every reply carries a trace id."
    return None if reply.trailer("trace-id") else "there is no trace id"

@schema.parametrize(include=("List",))
def test_contract(case):
    case.call_and_validate()
"""
    )

    result = pytester.runpytest("-p", "no:asyncio")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*has_a_trace_id (major): there is no trace id*"])


@pytest.mark.parametrize(
    ("signature", "complaint"),
    [("async def test_contract(case)", "*coroutine*"), ("def test_contract()", "*named case*")],
)
def test_a_function_that_cannot_be_a_test_is_rejected(
    pytester: pytest.Pytester, shop: str, signature: str, complaint: str
) -> None:
    pytester.makepyfile(shop + f"@schema.parametrize()\n{signature}:\n    pass\n")

    result = pytester.runpytest("-p", "no:asyncio")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([complaint])
