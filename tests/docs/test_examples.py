"""Test that the examples of the pages print on a real server what the pages show."""

import os
import re
import runpy
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from credit_testing.pages import Example, blocks, comparable, examples, run_commands, shows
from credit_testing.scripts import load_script
from credit_testing.server import ServerProcess, migrated, running_server
from credit_testing.template import template
from pymongo import AsyncMongoClient
from standardwebhooks.webhooks import Webhook

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
GETTING_STARTED = (ROOT / "docs" / "getting-started.md").read_text()
OTHER_CLIENTS = (ROOT / "docs" / "other-clients.md").read_text()
PAGES = [
    "alerts",
    "family-pool",
    "free-trial",
    "grants-and-holds",
    "monthly-allowance",
    "pay-per-answer",
    "refund-desk",
    "statements",
    "user-ids",
    "watching",
]
ID = re.compile(r"\b[0-9a-f]{24}\b")
SECRET = "whsec_" + "A" * 32
ADDRESSES = ("localhost:50051", "127.0.0.1:50051")


@pytest.fixture(scope="module")
async def server(
    mongod_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    """Return a server for all pages: each is about another user."""
    database = "test_examples"
    options = await migrated(mongod_uri, database)
    async with running_server(tmp_path_factory.mktemp("examples"), *options) as process:
        yield process
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(database)


def test_the_commands_of_getting_started_and_its_apps_print_what_it_shows(
    server: ServerProcess, tmp_path: Path
) -> None:
    shown = examples(GETTING_STARTED)
    _assert_shown([one for one in shown if one.command.startswith("credit ")], server)

    app, worker, use_of_worker, _ = blocks(GETTING_STARTED, "python")
    requests = [one for one in shown if one.command.startswith("curl ")]
    assert len(requests) == 2
    with _web_app(_on(server, app), tmp_path) as address:
        for request in requests:
            url = request.command.removeprefix("curl -X POST '").removesuffix("'")
            here = url.replace("http://127.0.0.1:8000", address)
            assert _post(here) == (200, request.output.strip())
        assert _post(f"{address}/users/404/reports/r-82?order_id=4712") == (
            402,
            '{"detail":"10 credits are missing"}',
        )
        # An order that has paid for one report does not unlock another one.
        add = "credit add --user 406 --app 1 --credits 20 --by 1"
        run_commands([add], ROOT, {"CREDIT_TARGET": server.address})
        for report, balance in (("r-82", 15), ("r-83", 10), ("r-83", 10)):
            bought = _post(f"{address}/users/406/reports/{report}?order_id=4714")
            assert bought == (200, f'{{"balance":{balance}}}')
        # What is left after the payment is too little for a second hold.
        add = "credit add --user 405 --app 1 --credits 10 --by 1"
        run_commands([add], ROOT, {"CREDIT_TARGET": server.address})
        for _ in range(2):
            paid = _post(f"{address}/users/405/reports/r-82?order_id=4713")
            assert paid == (200, '{"balance":5}')

    assert (
        "It prints the balance, `160` after the calls above. Run again, it prints the same,"
        in GETTING_STARTED
    )
    assert [_printed(server, worker + use_of_worker) for _ in range(2)] == ["160", "160"]


def test_the_commands_for_other_clients_print_what_their_page_shows(server: ServerProcess) -> None:
    _assert_shown(examples(OTHER_CLIENTS), server)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_what_its_commands_and_programs_print(
    server: ServerProcess, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    text = (ROOT / "docs" / f"{page}.md").read_text()
    programs: list[str] = []
    # The ids that the page shows differ from those of this run: commands get the latter.
    actual: dict[str, str] = {}
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        match language:
            case "python":
                programs.append(_printed(server, block))
            case "text":
                assert shows(block, programs[-1] + "\n"), programs[-1]
            case "console":
                for example in examples(f"```console\n{block}```"):
                    command = ID.sub(lambda found: actual[found[0]], example.command)
                    (output,) = run_commands([command], ROOT, {"CREDIT_TARGET": server.address})
                    assert shows(example.output, output), f"$ {command}\n{output}"
                    actual.update(zip(ID.findall(example.output), ID.findall(output), strict=False))
    assert actual or programs


def test_the_receiver_of_webhooks_takes_a_signed_message_once_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    page = (ROOT / "docs" / "alerts.md").read_text()
    (program,) = (block for block in blocks(page, "python") if "Flask(" in block)
    (message,) = blocks(page, "json")
    (tmp_path / "receiver.py").write_text(program)
    names = runpy.run_path(str(tmp_path / "receiver.py"), run_name="receiver")
    receiver, sent_at = names["app"].test_client(), datetime.now(UTC)
    signature = Webhook(SECRET).sign("m-1", sent_at, message)
    for signed, status in ((signature, 204), (signature, 204), ("v1,AAAA", 400)):
        headers = {
            "webhook-id": "m-1",
            "webhook-timestamp": str(int(sent_at.timestamp())),
            "webhook-signature": signed,
        }
        assert receiver.post("/credit-events", data=message, headers=headers).status_code == status
    assert capsys.readouterr().out == "To user 7: you have 19 credits left.\n"


def test_the_picture_of_the_readme_shows_its_commands_and_their_output(
    server: ServerProcess, tmp_path: Path
) -> None:
    recording = load_script(ROOT / "tools" / "recording.py")
    assert len(recording.commands()) == 3
    now = recording.described(recording.drawn(recording.recorded(tmp_path, server.address)))
    then = recording.described(recording.PICTURE.read_text())
    assert comparable(then) == comparable(now), "the picture is out of date: run `make recording`"

    (code,) = blocks(README, "python")
    # 115 more than after the commands; a second run counts nothing twice.
    assert [_printed(server, code) for _ in range(2)] == ["230", "230"]


def _assert_shown(shown: list[Example], server: ServerProcess) -> None:
    """Run commands on a server, and compare what they print with what a page shows."""
    assert shown
    commands = [_on(server, example.command) for example in shown]
    printed = run_commands(commands, ROOT, {"CREDIT_TARGET": server.address})
    for example, output in zip(shown, printed, strict=True):
        assert shows(_on(server, example.output), output), f"$ {example.command}\n{output}"


def _printed(server: ServerProcess, code: str) -> str:
    """Run a page's code as a program, and return what it prints."""
    program = [sys.executable, "-c", _on(server, code)]
    with template().start(program, folder=ROOT, environment=os.environ) as process:
        printed, errors = process.stdout.read(), process.stderr.read()
        assert process.wait() == 0, errors.decode()
    return printed.decode().strip()


@contextmanager
def _web_app(code: str, folder: Path) -> Iterator[str]:
    """Run a page's web app with the page's command, on a free port; yield its address."""
    (folder / "app.py").write_text(code)
    with subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "app:app", "--port", "0"],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            log = ""
            for line in process.stderr:
                log += line
                if running := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
                    yield running[1]
                    break
            else:
                pytest.fail(log)
        finally:
            process.terminate()


def _post(url: str) -> tuple[int, str]:
    """Send a POST request; return the status and the body of the answer."""
    try:
        with urlopen(Request(url, method="POST")) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def _on(server: ServerProcess, text: str) -> str:
    """Return the text of a page with the address of a server instead of the default."""
    for address in ADDRESSES:
        text = text.replace(address, server.address)
    return text
