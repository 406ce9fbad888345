"""The reference matches the contract, and its examples work."""

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import credit_client
import pytest
from contract_check.buf import build_image
from contract_check.errors import CheckError
from contract_check.image import Image
from contract_check.reference import render
from contract_check.reference.examples import example
from credit_client import CreditClient
from credit_models.reasons import ACCESS_REASONS, reason_name
from credit_models.scopes import METHOD_SCOPES, SCOPED_BY_OPERATION

from tests.contract.conftest import ROOT, Copy
from tests.server.serving import Serving, serving

REFERENCE = (ROOT / "docs" / "reference.md").read_text()
ADDRESS = "localhost:50051"
# The first Python example only shows the context of the others.
SDK = re.findall(r"```python\n(.*?)```", REFERENCE, re.DOTALL)[1:]
# The calls whose receipts have the ids that later examples name.
NAMED = {"GrantCredits": "GRANT_ID", "PlaceHold": "HOLD_ID", "CaptureHold": "TRANSACTION_ID"}
CURL = re.findall(r"```sh\n(.*?)```", REFERENCE, re.DOTALL)


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    async with serving() as running:
        yield running


def _contract() -> Image:
    return Image(build_image(ROOT / "contracts", source_info=True))


def test_the_committed_reference_is_up_to_date() -> None:
    assert render(_contract()) == REFERENCE


def test_it_names_every_call_message_field_and_enum_value() -> None:
    image = _contract()
    own = "credit.v1."
    for call in image.methods.values():
        assert f"\n### {call.name}\n" in REFERENCE
    for name, message in image.messages.items():
        if name.startswith(own):
            assert f"\n### {message.name}\n" in REFERENCE
            assert all(f"| `{field.name}` |" in REFERENCE for field in message.fields)
    for name, enum in image.enums.items():
        if name.startswith(own):
            assert all(f"| `{value.name}` |" in REFERENCE for value in enum.values)


def test_constraints_are_described_in_words() -> None:
    report_id = "1 to 128 characters, [`TEXT_IDENTIFIER`](#text), must be set"
    assert f"| 3 | `report_id` | `string` | {report_id} |" in REFERENCE
    assert "| 2 | `user_id` | optional `uint32` | 1 to 4294967295 |" in REFERENCE
    assert "| 9 | `sequence` | `uint64` | at least 1 |" in REFERENCE


def test_each_call_has_its_scope_and_the_reference_lists_the_access_reasons() -> None:
    each_operation = dict.fromkeys(SCOPED_BY_OPERATION, "of each operation")
    for path, scope in {**METHOD_SCOPES, **each_operation}.items():
        call = REFERENCE.partition(f"- Path: `{path}`")[2].partition("\n\n")[0]
        assert f"- Scope: `{scope}`" in call
    access = REFERENCE.partition("\n### Access\n")[2].partition("\n### ")[0]
    assert re.findall(r"\| \[`(\w+)`\]", access) == [
        reason_name(reason) for reason in ACCESS_REASONS
    ]


def test_links_point_to_headings() -> None:
    headings = {found.lower() for found in re.findall(r"^#+ (\S+)$", REFERENCE, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(.*?)\)", REFERENCE)) <= headings


def test_a_change_of_the_contract_changes_the_reference(copy: Copy) -> None:
    copy.edit("// The number of credits that can be spent.", "// How many | there are.")
    changed = render(Image(build_image(copy.contracts, source_info=True)))
    assert r"| How many \| there are. |" in changed


def test_a_call_without_an_example_fails() -> None:
    with pytest.raises(CheckError, match=r"credit\.v1\.CreditService\.StealCredits has no example"):
        example("credit.v1.CreditService.StealCredits")


def test_there_is_an_example_of_each_kind_for_each_call_that_the_sdk_makes() -> None:
    methods = _contract().methods
    assert len(CURL) == len(methods)
    assert len(SDK) == sum("CreditService" in name for name in methods)


async def test_the_examples_of_the_sdk_work(
    served: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    async with CreditClient(f"localhost:{served.port}") as client:
        names = {**vars(credit_client), "credits": client}
        for code in SDK:
            compiled = compile(code, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            running = eval(compiled, names)
            if inspect.isawaitable(running):
                await running
    lines = capsys.readouterr().out.splitlines()
    purchase_id = lines[1].partition(" ")[0]
    assert lines == [
        "120 False",
        f"{purchase_id} 115",
        "{1: 115}",
        "115",
        "115",
        "Traffic 5",
        "1 ADD 120",
        "2 USE 115",
    ]


async def test_the_examples_of_buf_curl_work(served: Serving) -> None:
    executables = Path(sys.executable).parent
    path = f"{executables}{os.pathsep}{os.environ['PATH']}"
    ids: dict[str, str] = {}
    output = ""
    for command in CURL:
        script = command.replace(ADDRESS, f"localhost:{served.port}")
        assert ADDRESS not in script
        for name, value in ids.items():
            script = script.replace(name, value)
        process = await _shell(script, path)
        assert process.returncode == 0, (script, process.stderr)
        output += process.stdout
        created = re.search(r'"transactionId": "(\w+)"', process.stdout)
        method = command.strip().rpartition("/")[2]
        if created is not None and method in NAMED:
            ids[NAMED[method]] = created[1]
    # Two answers are `Empty`. Without webhooks, alerts, events and checkpoints, the answers of
    # their calls are empty too.
    assert output.count("{}") == 10
    assert '"reportName": "Traffic"' in output
    assert '"type": "TRANSACTION_TYPE_USE"' in output
    assert output.count('"receipt"') == 14  # of each write, of a batch, and of a stream


async def _shell(script: str, path: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        ["sh", "-c", script],
        env={**os.environ, "PATH": path},
        check=False,
        capture_output=True,
        text=True,
    )
