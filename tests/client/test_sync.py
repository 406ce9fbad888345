"""The synchronous client: threads, forks, interruptions, exits and tracebacks."""

import asyncio
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from credit_client import (
    ClientClosed,
    ClientSettings,
    CreditError,
    DeadlineExceeded,
    ErrorReason,
    ImportReport,
    ImportRow,
    InsufficientCredits,
    Outcome,
    RejectedRow,
    StoreUnavailable,
    TokenUnavailable,
    request_id,
)
from credit_client.sync import CreditClient, loop
from credit_client.sync.testing import FakeCreditService, fake_credits
from credit_client.transport import Answer
from credit_models import CreditTransaction, Empty
from credit_testing.scripts import load_script

from tests.client.served import Served

ROOT = Path(__file__).parents[2]

# Any: the arguments of a call have no common type.
ADDITION: dict[str, Any] = {"user_id": 7, "app_id": 1, "credits": 120, "created_by": 1}
PURCHASE: dict[str, Any] = {**ADDITION, "report_id": "r", "report_name": "Report", "credits": 20}


@pytest.fixture
def served(fake_server: Any) -> Iterator[Served]:
    with Served(fake_server) as serving:
        yield serving


def _client(served: Served, **options: Any) -> CreditClient:
    return CreditClient(f"127.0.0.1:{served.port}", **options)


def test_the_committed_client_is_the_one_that_the_asynchronous_client_gives() -> None:
    generate = load_script(ROOT / "tools" / "generate_sync.py")
    assert (ROOT / generate.TARGET).read_text() == generate.build()


def test_calls_return_what_the_asynchronous_calls_return() -> None:
    service = FakeCreditService()
    with fake_credits(service) as credits_:
        assert credits_.add(**ADDITION).balance == 120
        with credits_.hold(**ADDITION | {"credits": 50}, expires_after=timedelta(hours=1)) as hold:
            assert (hold.held, hold.user_id, hold.app_id) == (50, 7, 1)
            assert credits_.balance(app_id=1, user_id=7) == 70
            receipt = hold.capture(20, report_id="r", report_name="Report")
            assert hold.receipt == receipt
        with credits_.batch() as batch:
            added = batch.add(**ADDITION)
        assert (added.receipt.balance, len(batch), list(batch)) == (220, 1, [added])
        names = [entry.type.name for entry in credits_.transactions(user_id=7)]
        assert names == ["ADD", "HOLD", "RELEASE", "USE", "ADD"]
        assert [each.id for each in credits_.holds(user_id=7, app_id=1)] == []
        credits_.grant(**ADDITION, expires_after=timedelta(days=1))
        service.clock.advance(timedelta(days=1))
        assert credits_.balance(app_id=1, user_id=7) == 220


def test_a_hold_without_a_block_is_placed_at_once_and_found_by_its_id() -> None:
    with fake_credits() as credits_:
        credits_.add(**ADDITION)
        hold = credits_.hold(**ADDITION)
        found = credits_.hold_of(hold_id=hold.id, user_id=7, app_id=1, created_by=1)
        assert (found.held, found.expires_at, hold.expires_at is not None) == (None, None, True)
        assert found.release().released_credits == 120


def test_a_batch_whose_writes_fail_raises_a_group() -> None:
    with fake_credits() as credits_:
        batch = credits_.batch()
        batch.use(**PURCHASE)
        with pytest.raises(ExceptionGroup, match="1 of 1 writes failed"), batch:
            pass
        assert [type(each.error) for each in batch.send()] == [InsufficientCredits]


def test_an_import_reads_its_rows_and_calls_its_functions_in_the_callers_thread() -> None:
    threads = set()

    def rows() -> Iterator[ImportRow]:
        for number in range(1, 1201):
            threads.add(threading.current_thread())
            yield ImportRow(user_id=number, app_id=1, credits=number % 600, created_by=1)

    def progress(report: ImportReport) -> None:
        threads.add(threading.current_thread())

    rejected: list[RejectedRow] = []
    with fake_credits() as credits_:
        report = credits_.import_(
            rows(), name="spring", progress=progress, rejected=rejected.append
        )
    assert (report.rows, report.applied, report.rejected) == (1200, 1198, 2)
    assert sorted(each.number for each in rejected) == [600, 1200]
    assert threads == {threading.current_thread()}


def test_rows_that_raise_end_an_import_with_their_exception() -> None:
    def rows() -> Iterator[ImportRow]:
        yield ImportRow(user_id=1, app_id=1, credits=1, created_by=1)
        raise ZeroDivisionError

    with fake_credits() as credits_:
        with pytest.raises(ZeroDivisionError):
            credits_.import_(rows(), name="spring")
        assert credits_.balance(app_id=1) == 0


def test_threads_share_a_client() -> None:
    with fake_credits() as credits_, ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: credits_.add(**ADDITION), range(200)))
        assert credits_.balance(app_id=1, user_id=7) == 200 * 120


def test_a_list_is_read_in_parts_and_a_failure_comes_after_the_rows_before_it() -> None:
    with fake_credits() as credits_:
        with credits_.batch() as batch:
            for _ in range(250):
                batch.add(**ADDITION)
        assert [each.sequence for each in credits_.transactions(user_id=7)] == [*range(1, 251)]
        rows = credits_.transactions(user_id=7)
        assert next(rows).sequence == 1
        rows.close()
        assert list(rows) == []


def test_a_list_that_is_dropped_ends_its_call() -> None:
    with fake_credits() as credits_:
        credits_.add(**ADDITION)
        rows = credits_.transactions(user_id=7)
        next(rows)
        del rows
        gc.collect()
        assert credits_.balance(app_id=1) == 120


def test_a_list_that_is_left_while_its_next_row_is_awaited_ends_its_call(
    scripted: Callable[..., Any],
) -> None:
    transport = scripted([CreditTransaction(sequence=1), asyncio.Event()])
    with CreditClient(transport=transport) as credits_:
        rows = credits_.transactions(user_id=7)
        assert next(rows).sequence == 1
        rows.close()
        _settle()
        assert transport.closed_streams == 1


def test_a_call_that_is_interrupted_before_its_start_leaves_the_loop_usable() -> None:
    with fake_credits() as credits_:
        call = loop.Call[None](loop.start_once(lambda thread: thread))
        call.put(_interrupt)
        with pytest.raises(KeyboardInterrupt):
            call.run(asyncio.sleep(60))
        assert credits_.add(**ADDITION).balance == 120


def _interrupt() -> None:
    raise KeyboardInterrupt


def _settle() -> None:
    """Return when the loop has done what was posted to it."""
    for _ in range(3):
        loop.Call[None](loop.start_once(lambda thread: thread)).run(asyncio.sleep(0))


def test_a_client_opens_with_its_first_call_and_a_closed_one_rejects_calls(served: Served) -> None:
    credits_ = _client(served)
    assert credits_.add(**ADDITION).balance == 120
    credits_.close()
    credits_.close()
    with pytest.raises(ClientClosed, match="the client was closed") as caught:
        credits_.add(**ADDITION)
    assert caught.value.outcome is Outcome.NO_CHANGE
    with credits_:
        assert credits_.balance(app_id=1) == 120
        with pytest.raises(RuntimeError, match="already open"):
            credits_.__enter__()


def test_a_client_that_is_dropped_closes_its_connections(served: Served) -> None:
    credits_ = _client(served)
    credits_.add(**ADDITION)
    entered = loop.start_once(lambda thread: thread)._entered
    assert len(entered) == 1
    del credits_
    gc.collect()
    _settle()
    assert entered == set()


def test_arguments_are_checked_when_the_client_is_made() -> None:
    with pytest.raises(ValueError, match="timeout_seconds"):
        CreditClient("localhost:1", timeout_seconds=0)
    assert CreditClient("localhost:1").settings.target == "localhost:1"


def test_a_deadline_ends_a_call() -> None:
    with (
        CreditClient("127.0.0.1:1", timeout_seconds=0.01) as credits_,
        pytest.raises(DeadlineExceeded),
    ):
        credits_.balance(app_id=1)


def test_the_request_id_of_the_thread_applies() -> None:
    with fake_credits() as credits_, request_id("page-4711"):
        with pytest.raises(InsufficientCredits) as caught:
            credits_.use(**PURCHASE)
        assert caught.value.request_id == "page-4711"


def test_a_traceback_shows_the_callers_line_and_nothing_of_the_event_loop() -> None:
    settings = ClientSettings(retry_attempts_max=1)
    service = FakeCreditService()
    with fake_credits(service, settings=settings) as credits_:
        service.fail_next(ErrorReason.STORE_UNAVAILABLE)
        with pytest.raises(StoreUnavailable) as caught:
            credits_.add(**ADDITION)
    shown = "".join(traceback.format_exception(caught.value))
    assert "credits_.add(**ADDITION)" in shown
    files = {line.split('"')[1] for line in shown.splitlines() if line.startswith("  File")}
    package = Path(loop.__file__).parent
    assert {Path(each).parent for each in files} == {Path(__file__).parent, package}


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Handle SIGINT as a program at a terminal does; in a background job it can be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interruption_cancels_the_call_and_names_the_key_of_the_write(
    scripted: Callable[..., Any], written: Answer[Empty]
) -> None:
    reached = asyncio.Event()

    def interrupt() -> None:
        while not reached.is_set():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Thread(target=interrupt)
    with CreditClient(transport=scripted(reached, written)) as credits_:
        timer.start()
        with pytest.raises(KeyboardInterrupt) as caught:
            credits_.use(**PURCHASE, idempotency_key="order-1")
        timer.join()
        assert any("order-1" in note for note in caught.value.__notes__)
        assert credits_.use(**PURCHASE, idempotency_key="order-1").sequence == 1


class _InterruptedQueue(SimpleQueue[Any]):
    """Raises KeyboardInterrupt once, in the thread that has just taken a finished task."""

    armed = False

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        taken = super().get(block, timeout)
        if _InterruptedQueue.armed and isinstance(taken, asyncio.Task):
            _InterruptedQueue.armed = False
            raise KeyboardInterrupt
        return taken


def test_an_interruption_that_arrives_with_the_answer_names_the_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "SimpleQueue", _InterruptedQueue)
    with fake_credits() as credits_:
        credits_.balance(app_id=1)
        _InterruptedQueue.armed = True
        with pytest.raises(KeyboardInterrupt) as caught:
            credits_.add(**ADDITION, idempotency_key="order-1")
        receipt = credits_.add(**ADDITION, idempotency_key="order-1")
        assert receipt.replayed
        [note] = caught.value.__notes__
        assert note.endswith(f"had already succeeded, as the transaction {receipt.transaction_id}")


def test_a_signal_handler_that_raises_ends_a_call_that_waits() -> None:
    class TimeLimit(Exception):
        pass

    def raise_limit(*_: object) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, raise_limit)
    try:
        with CreditClient("127.0.0.1:1", timeout_seconds=60) as credits_:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(TimeLimit) as caught:
                credits_.add(**ADDITION, idempotency_key="order-1")
            assert any("order-1" in note for note in caught.value.__notes__)
    finally:
        signal.signal(signal.SIGALRM, before)


async def test_a_call_works_inside_a_running_event_loop() -> None:
    with fake_credits() as credits_:
        assert credits_.add(**ADDITION).balance == 120


def test_a_call_in_the_clients_own_event_loop_is_rejected(served: Served) -> None:
    other = _client(served)
    other.balance(app_id=1)

    async def token() -> str:
        return str(other.balance(app_id=1))

    with _client(served, token=token) as credits_, pytest.raises(TokenUnavailable) as caught:
        credits_.add(**ADDITION)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "in the thread of its own event loop" in str(caught.value.__cause__)
    other.close()


def _add_in_child(credits_: CreditClient, queue: Any) -> None:
    queue.put(credits_.add(**ADDITION).balance)


# Python 3.12 and later warn of every fork of a process with threads: that is the case under test.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_processes_have_connections_of_their_own(served: Served) -> None:
    credits_ = _client(served)
    assert credits_.add(**ADDITION).balance == 120
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_add_in_child, args=(credits_, queue)) for _ in range(2)]
    for child in children:
        child.start()
    assert sorted(queue.get() for _ in children) == [240, 360]
    for child in children:
        child.join()
        assert child.exitcode == 0
    # The children have not disturbed the parent's loop.
    assert credits_.add(**ADDITION).balance == 480
    credits_.close()


PROGRAM = """
import os, sys, threading
from credit_client import ClientClosed
from credit_client.sync import CreditClient
credits = CreditClient("127.0.0.1:{port}")
{body}
"""

BODIES = {
    "while a client is open and a list is read": """
for _ in range(3):
    credits.add(user_id=7, app_id=1, credits=1, created_by=1)
rows = credits.transactions(user_id=7)
next(rows)
""",
    "while a thread goes on": """
def work():
    try:
        while True:
            credits.add(user_id=7, app_id=1, credits=1, created_by=1)
    except (ClientClosed, RuntimeError):
        pass
credits.balance(app_id=1)
threading.Thread(target=work, daemon=True).start()
""",
    "after forks": """
credits.add(user_id=7, app_id=1, credits=1, created_by=1)
for work in (lambda: credits.balance(app_id=1), credits.close):
    child = os.fork()
    if child == 0:
        work()
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
credits.add(user_id=7, app_id=1, credits=1, created_by=1)
""",
}


@pytest.mark.parametrize("body", BODIES)
def test_a_program_ends_without_a_hang_and_without_warnings(served: Served, body: str) -> None:
    program = PROGRAM.format(port=served.port, body=BODIES[body])
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


def test_ctrl_c_during_a_call_ends_a_program_with_a_keyboard_interrupt() -> None:
    program = (
        "import os, signal, threading\n"
        "from credit_client.sync import CreditClient\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "credits = CreditClient('127.0.0.1:1', timeout_seconds=60)\n"
        "threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "credits.add(user_id=7, app_id=1, credits=1, created_by=1, idempotency_key='order-1')\n"
    )
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in finished.stderr
    assert "order-1" in finished.stderr
    assert "Exception ignored" not in finished.stderr


def test_all_errors_are_those_of_the_asynchronous_client() -> None:
    with fake_credits() as credits_, pytest.raises(CreditError) as caught:
        credits_.use(**PURCHASE, idempotency_key="order-1")
    assert type(caught.value) is InsufficientCredits
    assert caught.value.idempotency_key == "order-1"
