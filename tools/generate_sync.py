"""Build the synchronous client from the asynchronous one, or check that it is fresh.

Run as `.venv/bin/python tools/generate_sync.py [--check]`; `make generate` does so. Signatures and
docstrings are copied, so that there is one place to change them. Needs no network.
"""

import argparse
import ast
import inspect
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from credit_client import batch, client, history, hold_handle

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path("packages/credit-client/src/credit_client/sync/client.py")

HEAD = '''\
"""The synchronous client. Made from the asynchronous one by `make generate`. Do not edit."""

# ruff: noqa: A002 - `credits` is the contract's word
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from credit_models import (
    Alert,
    AlertDirection,
    AlertEvent,
    AppPolicy,
    Balance,
    CreditTransaction,
    DeadLetter,
    DirectoryUser,
    Grant,
    GrantCategory,
    Hold,
    Purchase,
    Receipt,
    SignedCheckpoint,
    SummaryGroup,
    TransactionType,
    UserCredits,
    Webhook,
)
from credit_models import GetBalanceAtResponse as BalanceAt
from credit_models import GetForecastResponse as Forecast
from credit_models import GetSpendingCapResponse as UserSpendingCaps
from credit_models import ListAlertsResponse as AlertList
from credit_models import QueryPurchasesResponse as PurchasePage
from credit_models import QueryTransactionsResponse as TransactionPage
from credit_models import SummarizeResponse as Summaries
from credit_models import WatchResponse as WatchEvent

from credit_client import batch as _batch
from credit_client import client as _client
from credit_client import history as _history
from credit_client import hold_handle as _hold_handle
from credit_client.arguments import FilePath, TlsArgument, TokenArgument
from credit_client.batch import BatchOperation
from credit_client.checkpoint import Checkpoint
from credit_client.importing import ImportReport, ImportRow, RejectedRow
from credit_client.settings import ClientSettings
from credit_client.sync.session import Session
from credit_client.transport import Transport
from credit_client.verification import HistoryVerifier
from credit_client.writes import NotedOptions, WriteOptions
'''

CLIENT_HEAD = '''\
class CreditClient:
    """Adds, spends and shows credits from code that is not asynchronous.

        with CreditClient("localhost:50051") as credits:
            receipt = credits.add(user_id=7, app_id=1, credits=120, created_by=1)

    All threads of a process may share a client. Keep it open as long as the app runs: it keeps
    connections, reopens them after a loss, and retries calls that may succeed later. `with` is not
    needed: the first call opens the client, and `close` or the end of the process closes it. A
    forked process opens connections of its own, so that a client may be made before the fork.

    Every write has an idempotency key, so that the SDK's own retries never count twice. For your
    own retries, make the key first (`new_key`) and store it: a write that is interrupted, or whose
    process ends, may have taken effect.

    All methods raise `CreditError`s (`credit_client.errors` has the tree), `TypeError` where an
    argument has the wrong type, and `ValueError` where `timeout_seconds` is not above 0 and at most
    a day. An exception from outside, such as KeyboardInterrupt, cancels the call. Ids, `credits`
    and `created_by` are 1 to 4294967295.

    Every `user_id` may also be the text by which the app knows the user, such as a UUID. The client
    looks up the number once and remembers it. `add` and `grant` give a number to a new user, and
    all other methods raise `UserNotFound`.

    A call blocks its thread. In a coroutine it stops the whole event loop for that time: use
    `credit_client.CreditClient` there.
    """
'''

CLIENT_TAIL = '''\
    def close(self) -> None:
        """Close the client and its connections; calls under way end with `ClientClosed`."""
        self._session.close()

    def __enter__(self) -> Self:
        """Open the client.

        Raises:
            RuntimeError: It is in another `with` block already.
        """
        self._session.enter()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client; see `close`."""
        self._session.close()
'''

BATCH_HEAD = '''\
class Batch:
    """Collects writes, and sends them together: `with credits.batch() as batch:`.

    Its methods are those of `CreditClient`, with the same arguments except `timeout_seconds`.

    At the end of the `with` block the writes are sent, in messages of up to 1,000. If the block
    raises, nothing is sent. If writes fail, the end of the block raises an `ExceptionGroup` of
    their errors; each `BatchOperation` has its own receipt or error. Call `send` yourself, and
    without `with`, if failed writes are no exception to your app.
    """

    def __init__(self, session: Session, batch: _batch.Batch) -> None:
        """Take the batch to fill; `CreditClient.batch` makes one."""
        self._session = session
        self._wrapped = batch

    def __len__(self) -> int:
        """Return the number of writes."""
        return len(self._wrapped)

    def __iter__(self) -> Iterator[BatchOperation]:
        """Iterate over the writes, in the order in which they were added."""
        return iter(self._wrapped)
'''

HOLD_HEAD = '''\
class HoldHandle:
    """A hold, by its id: `CreditClient.hold` places one, `CreditClient.hold_of` finds one.

    In a `with` block, the end releases what was not captured; it does so also if the block raises.
    If the release fails, a line of the log names the failure, and the hold's own end frees the
    credits.
    """

    def __init__(self, session: Session, hold: _hold_handle.HoldHandle) -> None:
        """Take the hold; `CreditClient.hold` and `CreditClient.hold_of` make a handle."""
        self._session = session
        self._wrapped = hold

    @property
    def id(self) -> str:
        """The hold's id, which another process may pass to `CreditClient.hold_of`."""
        return self._wrapped.id

    @property
    def user_id(self) -> int | str:
        """The user whose credits are reserved."""
        return self._wrapped.user_id

    @property
    def app_id(self) -> int:
        """The app."""
        return self._wrapped.app_id

    @property
    def receipt(self) -> Receipt | None:
        """The receipt of this handle's latest write; None before the first."""
        return self._wrapped.receipt

    @property
    def expires_at(self) -> datetime | None:
        """When the hold ends; None: this handle has neither placed nor extended it."""
        return self._wrapped.expires_at
'''

QUERY_HEAD = '''\
class {name}:
    """The {rows} of `CreditClient.query_{rows}`, as an iterable.

    `for row in query` reads the pages as they are needed. Each loop starts with the first page. To
    show one page at a time, use `page` and keep its `next_page_token`.
    """

    def __init__(self, session: Session, query: _history.{name}) -> None:
        """Take the query; `CreditClient.query_{rows}` makes one."""
        self._session = session
        self._wrapped = query

    def __iter__(self) -> Generator[{row}, None, None]:
        """Iterate over the {rows} of all pages."""
        return self._session.rows(aiter(self._wrapped))
'''

BLOCK = '''\
    def __enter__(self) -> Self:
        """Begin the block."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """{doc}"""
        self._session.run(self._wrapped.__aexit__(error_type, error, traceback))
'''


@dataclass(frozen=True, kw_only=True)
class Facade:
    """One class to build.

    Attributes:
        source: The asynchronous class.
        wrapped: The expression that its calls go to.
        result: What a write, or a page of a query, returns: the value of `ResultT` or `PageT`.
        head: The class's beginning, and the members that are no copies.
        tail: The members after the copies.
    """

    source: type
    wrapped: str
    result: str
    head: str
    tail: str


FACADES = (
    Facade(
        source=batch.Batch,
        wrapped="self._wrapped",
        result="BatchOperation",
        head=BATCH_HEAD,
        tail=BLOCK.format(doc="Send the writes, unless the block has raised; see `Batch`."),
    ),
    Facade(
        source=hold_handle.HoldHandle,
        wrapped="self._wrapped",
        result="Receipt",
        head=HOLD_HEAD,
        tail=BLOCK.format(doc="Release what was not captured. What the block raised passes."),
    ),
    Facade(
        source=history.TransactionQuery,
        wrapped="self._wrapped",
        result="TransactionPage",
        head=QUERY_HEAD.format(
            name="TransactionQuery", rows="transactions", row="CreditTransaction"
        ),
        tail="",
    ),
    Facade(
        source=history.PurchaseQuery,
        wrapped="self._wrapped",
        result="PurchasePage",
        head=QUERY_HEAD.format(name="PurchaseQuery", rows="purchases", row="Purchase"),
        tail="",
    ),
    Facade(
        source=client.CreditClient,
        wrapped="self._session.client",
        result="Receipt",
        head=CLIENT_HEAD,
        tail=CLIENT_TAIL,
    ),
)

# What a docstring or a signature has for asynchronous code, and what it becomes.
TEXTS = (
    ("async with", "with"),
    ("async for", "for"),
    ("await ", ""),
    ("when the hold is awaited or the block begins", "when the hold is placed"),
    ("The rows, from any iterable, async or not.", "The rows, from any iterable."),
    ("a cancellation too", "an interruption too"),
    ("Iterable[ImportRow] | AsyncIterable[ImportRow]", "Iterable[ImportRow]"),
    ("PendingHold", "HoldHandle"),
)


def build() -> str:
    """Return the text of the module."""
    parts = [HEAD]
    for facade in FACADES:
        members = list(_members(facade))
        parts.append("\n".join([facade.head, *members, facade.tail]))
    return _formatted("\n\n".join(parts))


def _members(facade: Facade) -> Iterator[str]:
    for name, function in _functions(facade.source).items():
        if name == "__init__" and facade.source is client.CreditClient:
            yield _text(
                function, f"self._session = Session({_call('_client.CreditClient', function)})"
            )
        elif not name.startswith("_"):
            yield _text(function, _body(facade, function), facade.result)


def _functions(source: type) -> Mapping[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the methods of a class and its bases, in the order in which they are written."""
    found: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
    for base in source.__mro__:
        module = inspect.getmodule(base)
        if not isinstance(module, ModuleType) or not module.__name__.startswith("credit_client."):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)  # noqa: S101 - a class is all it can be
        for each in definition.body:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                found.setdefault(each.name, each)
    return found


def _body(facade: Facade, function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return the statement that passes a call to the asynchronous object."""
    decorators = [ast.unparse(each) for each in function.decorator_list]
    if "property" in decorators:
        owner = "self._session" if facade.source is client.CreditClient else facade.wrapped
        return f"return {owner}.{function.name}"
    if "staticmethod" in decorators:
        return f"return {_call(f'_client.CreditClient.{function.name}', function)}"
    call = _call(f"{facade.wrapped}.{function.name}", function)
    returned = ast.unparse(function.returns) if function.returns is not None else "None"
    if function.name == "import_":
        for name in ("progress", "rejected"):
            call = call.replace(f"{name}={name}", f"{name}=importing.function({name})")
        call = call.replace("import_(rows", "import_(importing.rows(rows)")
        return f"return self._session.import_(lambda importing: {call})"
    if returned.startswith("AsyncGenerator"):
        return f"return self._session.rows({call})"
    if returned == "PendingHold":
        return f"return HoldHandle(self._session, self._session.run({call}))"
    if returned in {"Batch", "HoldHandle", "PurchaseQuery", "TransactionQuery"}:
        return f"return {returned}(self._session, {call})"
    waits = isinstance(function, ast.AsyncFunctionDef) or (
        returned == "ResultT" and facade.source is client.CreditClient
    )
    return f"return self._session.run({call})" if waits else f"return {call}"


def _call(callee: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    arguments = function.args
    passed = [each.arg for each in arguments.args if each.arg != "self"]
    passed += [f"{each.arg}={each.arg}" for each in arguments.kwonlyargs]
    passed += [f"**{arguments.kwarg.arg}"] if arguments.kwarg is not None else []
    return f"{callee}({', '.join(passed)})"


def _text(function: ast.FunctionDef | ast.AsyncFunctionDef, body: str, result: str = "None") -> str:
    decorators = [f"@{ast.unparse(each)}\n" for each in function.decorator_list]
    returned = ast.unparse(function.returns) if function.returns is not None else "None"
    returned = returned.replace("AsyncGenerator", "Generator")
    for variable in ("ResultT", "PageT"):
        returned = returned.replace(variable, result)
    if returned.startswith("Generator"):
        returned = returned.replace(", None]", ", None, None]")
    doc = ast.get_docstring(function) or ""
    lines = doc.splitlines()
    quoted = f'"""{doc}\n"""' if len(lines) > 1 else f'"""{doc}"""'
    head = f"def {function.name}({ast.unparse(function.args)}) -> {returned}:\n"
    text = "".join(decorators) + head + textwrap.indent(f"{quoted}\n{body}\n", "    ")
    for asynchronous, synchronous in TEXTS:
        text = text.replace(asynchronous, synchronous)
    return textwrap.indent(text, "    ")


def _formatted(text: str) -> str:
    """Return a module as ruff formats it."""
    ruff = Path(sys.executable).with_name("ruff")
    finished = subprocess.run(  # noqa: S603 - our own ruff with our own arguments
        [str(ruff), "format", "--line-length", "100", "--stdin-filename", str(TARGET), "-"],
        cwd=ROOT,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        sys.exit(f"ruff cannot format {TARGET}:\n{finished.stderr}")
    return finished.stdout


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail when the committed file is stale"
    )
    path, fresh = ROOT / TARGET, build()
    if not parser.parse_args().check:
        path.write_text(fresh, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != fresh:
        sys.exit(f"{TARGET} is not what the asynchronous client gives.\nRun: make generate")


if __name__ == "__main__":
    main()
