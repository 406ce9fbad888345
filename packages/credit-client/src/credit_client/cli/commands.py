"""The commands of `credit`: each makes calls of the SDK and shows the answers."""

import errno
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated

import typer
from credit_models import Balance, CreditTransaction, UserCredits

from credit_client.cli.alerts import alert
from credit_client.cli.calls import Question, make_reads, make_write
from credit_client.cli.checkpoint import checkpoint
from credit_client.cli.connection import Connection
from credit_client.cli.exits import Exit, complain, discard
from credit_client.cli.export import export
from credit_client.cli.groups import with_groups, words_of
from credit_client.cli.help import Command, application, help_width
from credit_client.cli.history import (
    TRANSACTIONS,
    find,
    purchases,
    summary,
    transaction_record,
    transactions,
)
from credit_client.cli.hold_writes import capture, extend, hold, release
from credit_client.cli.importing import import_file
from credit_client.cli.ledger_reads import caps, filled, forecast, grants, holds, policy
from credit_client.cli.ledger_writes import adjust, cap, grant, refund, transfer, void
from credit_client.cli.options import (
    App,
    ArgumentUser,
    By,
    Conditions,
    Credits,
    Display,
    MinRevision,
    OptionUser,
    ReportId,
    ReportName,
    Sending,
    User,
    UserId,
    number,
    one_user,
    user_option,
)
from credit_client.cli.output import Format, Layout, record_of, show, show_json, show_rows
from credit_client.cli.statement import statement
from credit_client.cli.table import Record
from credit_client.cli.times import moment, read_option
from credit_client.cli.top import top
from credit_client.cli.verifying import verify_history
from credit_client.cli.watching import watch
from credit_client.cli.webhooks import webhook
from credit_client.client import CreditClient
from credit_client.errors import ServerTooOld, UserNotFound

# The fields of a balance that are seldom set. A table has a column for each that is set.
_BALANCES_SELDOM = ("held", "owed", "expiring", "expires_at")
_BALANCES = Layout(
    noun="balances",
    # Those of every balance: of a user in an app, of an app, and at an earlier time.
    fields=(
        "user_id",
        "app_id",
        "balance",
        *_BALANCES_SELDOM,
        "revision",
        "sequence",
        "as_of",
    ),
    columns=("app_id", "balance"),
)
_SUMMARY = ("user_id", "external_id", "revision", "created_at", "updated_at")

_WRITES = (
    "Where a write ends without its result, standard error shows whether it may have taken effect,"
    " and the command that retries it and counts once. Only kill -9 leaves no time for that: pass"
    " --key yourself where the process may be killed."
)

_TOKENS = (
    "A server that requires an identity gets a token from the variable CREDIT_TOKEN, or from a file"
    " that --token-file or CREDIT_TOKEN_FILE names; never from the command line, where other users"
    " could read it. Or pass a client certificate. A token is sent to another machine only over"
    " TLS."
)

app = application(help="Add, spend and show credits.", epilog=f"{_WRITES}\n\n{_TOKENS}")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - 20 ms, which few commands need

        typer.echo(f"credit {version('credit-client')}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Accept the options that belong to no command."""


@app.command("add", cls=Command)
@with_groups
def add(
    user: User,
    app_id: App,
    amount: Credits,
    words: list[object],
    sending: Sending,
    conditions: Conditions,
    connection: Connection,
    by: By = 1,
) -> None:
    """Add credits to a user's balance in an app."""
    make_write(
        lambda client, attempt: client.add(
            user_id=user,
            app_id=app_id,
            credits=amount,
            created_by=by,
            idempotency_key=attempt.key,
            expected_revision=conditions.expected_revision,
            min_available_after=conditions.min_available_after,
        ),
        [*words, *words_of(conditions)],
        connection,
        sending,
        question=Question(action="add", user_id=user, app_id=app_id, amount=amount),
    )


@app.command("use", cls=Command)
@with_groups
def use(
    user: User,
    app_id: App,
    report: ReportId,
    name: ReportName,
    amount: Credits,
    words: list[object],
    sending: Sending,
    conditions: Conditions,
    connection: Connection,
    by: By = 1,
    once: Annotated[
        bool, typer.Option("--once", help="Reject the purchase if the user owns the report.")
    ] = False,
) -> None:
    """Buy a report with a user's credits in an app."""
    make_write(
        lambda client, attempt: client.use(
            user_id=user,
            app_id=app_id,
            report_id=report,
            report_name=name,
            credits=amount,
            created_by=by,
            once=once,
            idempotency_key=attempt.key,
            expected_revision=conditions.expected_revision,
            min_available_after=conditions.min_available_after,
        ),
        [*words, *words_of(conditions)],
        connection,
        sending,
        question=Question(action="use", user_id=user, app_id=app_id, amount=amount),
    )


for _write in (grant, void, hold, capture, release, extend, refund, transfer, adjust, cap):
    app.command(_write.__name__, cls=Command)(_write)

app.command("import", cls=Command)(with_groups(import_file))


@app.command("balance", cls=Command)
@with_groups
def balance(
    connection: Connection,
    display: Display,
    app_id: Annotated[int | None, number("--app", "The app's id.")] = None,
    user: Annotated[UserId | None, user_option("--user", "The user.")] = None,
    min_revision: MinRevision = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="TIME",
            help="The balance at the beginning of this day, or at this time. Needs --user and"
            " --app.",
        ),
    ] = None,
) -> None:
    """Show a balance: of a user in an app, of all users of an app, or of a user in all apps."""

    async def earlier(client: CreditClient, app_id: int, user_id: int | str) -> None:
        found = await client.balance_at(
            user_id=user_id, app_id=app_id, at=time, min_revision=min_revision
        )
        whose = {"app_id": app_id, "user_id": user_id}
        _show_balance({**whose, **record_of(found)}, display)

    async def of_app(client: CreditClient, app_id: int) -> None:
        if user is None:
            total = await client.balance(app_id=app_id, min_revision=min_revision)
            _show_balance({"app_id": app_id, "balance": total}, display)
            return
        found = await client.balance_details(app_id=app_id, user_id=user, min_revision=min_revision)
        record = record_of(found) if display.form is Format.JSON else _balance_row(found)
        whose = {"app_id": app_id, "user_id": user}
        shown = {**whose, **record, **whose}
        if display.form is Format.TABLE and not found.revision:
            del shown["revision"]  # not known, such as to an identity that belongs to certain apps
        _show_balance(shown, display)
        unknown = not (found.balance or found.held or found.owed or found.revision)
        if unknown and display.form is Format.TABLE:
            # The revision is also 0 if the caller may not read the user's history.
            complain(f"credit: user {user} has no credits in app {app_id}, and no known history\n")

    async def of_user(client: CreditClient, user_id: int | str) -> None:
        held = await client.user_credits(user_id=user_id, min_revision=min_revision)
        if display.form is Format.JSON:
            show_json(_record(held))
        else:
            _show_balances(held, display)

    time = None if at is None else read_option("--at", at, lambda it: moment(it, utc=display.utc))
    if time is not None:
        if app_id is None or user is None:
            raise typer.BadParameter("--at needs both --user and --app")
        make_reads(lambda client, _: earlier(client, app_id, user), connection)
    elif app_id is not None:
        make_reads(lambda client, _: of_app(client, app_id), connection)
    elif user is not None:
        make_reads(lambda client, _: of_user(client, user), connection, paging=display.paged)
    else:
        raise typer.BadParameter("name an app, a user, or both: --app, --user")


for _query in (transactions, purchases, summary, find, statement, export, watch, top):
    app.command(_query.__name__, cls=Command)(_query)


@app.command("user", cls=Command)
@with_groups
def user_summary(
    connection: Connection,
    display: Display,
    given: ArgumentUser = None,
    user: OptionUser = None,
    last: Annotated[int, number("--last", "The number of last transactions to show.")] = 5,
    min_revision: MinRevision = None,
) -> None:
    """Show a user's balances in all apps and last transactions."""
    user_id = one_user("user", given, user)
    if last < 0:
        raise typer.BadParameter("--last must be 0 or more")
    if display.form is Format.CSV:
        raise typer.BadParameter(
            "credit user has no csv: use credit balance or credit transactions with -o csv"
        )

    async def shown(client: CreditClient) -> None:
        held = await client.user_credits(user_id=user_id, min_revision=min_revision)
        latest = [transaction_record(one) for one in await _latest(client, held, last)]
        if not held.balances and not latest:
            complain(f"credit: user {user_id} has no balance and no transaction\n")
        about = {**_record(held), **await _external_id(client, held.user_id)}
        if display.form is Format.JSON:
            show_json({**about, "transactions": latest})
            return
        known = {field: about[field] for field in _SUMMARY if field in about}
        show(known, Format.TABLE, utc=display.utc)
        if held.balances:
            sys.stdout.write("\n")
            _show_balances(held, display)
        if latest:
            sys.stdout.write("\n")
            show_rows(latest, TRANSACTIONS, Format.TABLE, utc=display.utc)

    make_reads(lambda client, _: shown(client), connection, paging=display.paged)


for _read in (grants, holds, forecast, caps, policy):
    app.command(_read.__name__, cls=Command)(_read)

app.command("checkpoint", cls=Command)(checkpoint)
app.command("verify-history", cls=Command)(verify_history)

app.add_typer(alert, name="alert")
app.add_typer(webhook, name="webhook")


def _show_balance(record: Record, display: Display) -> None:
    """Show one balance. CSV has the columns of all balances."""
    if display.form is Format.CSV:
        unset = dict.fromkeys(_BALANCES.fields)
        show_rows([{**unset, **record}], _BALANCES, Format.CSV)
    else:
        show(record, display.form, utc=display.utc)


def _show_balances(held: UserCredits, display: Display) -> None:
    """Show a user's balances. A table has columns for held and owed credits if there are any."""
    unset = dict.fromkeys(_BALANCES.fields)
    rows = [{**unset, "user_id": held.user_id, **_balance_row(each)} for each in held.balances]
    for row in rows:
        row["revision"] = None  # it is that of the user and not of a balance
    columns = (*_BALANCES.columns, *filled(rows, _BALANCES_SELDOM))
    show_rows(rows, replace(_BALANCES, columns=columns), display.form, utc=display.utc)


def _record(held: UserCredits) -> dict[str, object]:
    """Return the record of a user, whose balances have no revision of their own."""
    balances = [{**record_of(each)} for each in held.balances]
    for balance in balances:
        del balance["revision"]
    return {**record_of(held), "balances": balances}


def _balance_row(balance: Balance) -> Record:
    """Return the record of a balance, with separate fields for the credits that expire next."""
    record = {**record_of(balance), "expiring": 0, "expires_at": None}
    following = record.pop("expiring_next")
    if isinstance(following, dict):
        record |= {"expiring": following["credits"], "expires_at": following["at"]}
    return record


async def _external_id(client: CreditClient, user_id: int) -> dict[str, str]:
    """Return the user's id in the app, under the name of its field; empty if there is none."""
    try:
        return {"external_id": (await client.find_user(user_id=user_id)).external_id}
    except (UserNotFound, ServerTooOld):
        return {}


async def _latest(
    client: CreditClient, held: UserCredits, number: int
) -> Sequence[CreditTransaction]:
    """Return a user's last transactions, up to the one that made the balances.

    An identity that belongs to certain apps gets no `revision`. Without it the last transactions
    are found only by reading the whole list, which may be long: there are none then.
    """
    latest: deque[CreditTransaction] = deque(maxlen=number)
    if number and held.revision:
        after = max(0, held.revision - number)
        rows = client.transactions(user_id=held.user_id, after_sequence=after)
        async with aclosing(rows):
            async for row in rows:
                if row.sequence > held.revision:
                    break
                latest.append(row)
    return latest


def run() -> None:
    """Run the command on the arguments of the process."""
    try:
        try:
            app(prog_name="credit", terminal_width=help_width())
        finally:
            sys.stdout.flush()
    except OSError as error:
        # Network failures arrive as a `CreditError`: this is the output, on a full disk.
        discard(sys.stdout)
        complain(f"credit: cannot write the output: {error.strerror or error}\n")
        sys.exit(Exit.PIPE_CLOSED if error.errno == errno.EPIPE else Exit.OTHER)
