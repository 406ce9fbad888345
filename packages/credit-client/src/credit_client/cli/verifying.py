"""`credit verify-history`: check a history in a file without a server."""

import json
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from credit_models import Allocation, CreditTransaction, Receipt, TransactionType

from credit_client.checkpoint import load_checkpoint
from credit_client.cli.exits import Exit, complain
from credit_client.cli.options import check_key, fail, number
from credit_client.errors import CheckpointRejected, HistoryAltered
from credit_client.verification import HistoryVerifier

_TIMES = ("created_at", "effective_at", "expires_at")
_HASHES = ("previous_hash", "hash")

_MessageT = TypeVar("_MessageT", CreditTransaction, Receipt)

_FileArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        dir_okay=False,
        exists=True,
        show_default=False,
        help="The whole history of a user as JSON lines: credit export USER -o json.",
    ),
]


def _file(name: str, explanation: str) -> Any:  # Any: what typer returns for an option
    return typer.Option(name, metavar="FILE", dir_okay=False, exists=True, help=explanation)


def verify_history(
    file: _FileArgument,
    receipts: Annotated[
        Path | None,
        _file("--receipts", "Receipts of writes for the user, as JSON lines: those of -o json."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        _file(
            "--checkpoint", "A checkpoint of an app, as credit checkpoint saves it; needs --key."
        ),
    ] = None,
    key: Annotated[
        Path | None, _file("--key", "The operator's public key for checkpoints, in PEM.")
    ] = None,
    user: Annotated[
        int | None,
        number("--user", "The user's number: the file must have its entries up to the checkpoint."),
    ] = None,
) -> None:
    """Check that the history in a file was not changed after the server wrote it.

    The check needs no server. The exit code is 18 if a transaction was changed, removed or
    inserted.
    """
    if (checkpoint is None) != (key is None):
        raise typer.BadParameter("--checkpoint and --key belong together")
    try:
        covered = None
        if checkpoint is not None and key is not None:
            check_key(key)
            users = {transaction.user_id for transaction in _read(file, _transaction)}
            users |= set() if user is None else {user}
            if not users:
                fail(
                    f"{file}: there are no transactions. Name the user with --user, so that the"
                    " checkpoint shows whether there should be some",
                    Exit.MISUSE,
                )
            covered = load_checkpoint(checkpoint, key=key, user_ids=users)
        kept = [] if receipts is None else list(_read(receipts, _receipt))
        verifier = HistoryVerifier(receipts=kept, checkpoint=covered)
        if user is not None:
            verifier.expect(user_id=user)
        for transaction in _read(file, _transaction):
            verifier.add(transaction)
        verifier.end()
    except ValueError as error:
        fail(f"{checkpoint}: {error}", Exit.MISUSE)
    except (HistoryAltered, CheckpointRejected) as error:
        fail(str(error), Exit.HISTORY_ALTERED)
    except ImportError as error:
        fail(str(error), Exit.OTHER)
    except OSError as error:
        fail(f"the file {error.filename} cannot be read: {error.strerror}", Exit.OTHER)
    _report(verifier, len(kept), None if covered is None else covered.time)


def _report(verifier: HistoryVerifier, receipts: int, time: datetime | None) -> None:
    compared = [_count(receipts, "receipt")] if receipts else []
    if time is not None:
        compared.append(f"the checkpoint of {time:%Y-%m-%d %H:%M} UTC")
    if verifier.unhashed:
        complain(
            f"credit: {_count(verifier.unhashed, 'transaction')} at the beginning without a hash:"
            " only the balances were checked\n"
        )
    verified = _count(verifier.verified, "transaction")
    if compared:
        typer.echo(f"not changed: {verified}, compared with {' and '.join(compared)}")
        return
    typer.echo(f"consistent: {verified}")
    complain(
        "credit: only a receipt or a checkpoint can show that a history was replaced as a whole\n"
    )


def _count(number_: int, noun: str) -> str:
    return f"{number_:,} {noun}{'' if number_ == 1 else 's'}"


# Any: the values of JSON.
def _read(path: Path, convert: Callable[[Mapping[str, Any]], _MessageT]) -> Iterator[_MessageT]:
    """Yield the messages of a file with a JSON object on each line, or end the command."""
    with path.open(encoding="utf-8") as lines:
        for line_number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield convert(json.loads(line))
            except (AttributeError, KeyError, TypeError, ValueError):
                fail(
                    f"{path}: line {line_number} is not in the format of credit's JSON output; make"
                    " the file with -o json",
                    Exit.MISUSE,
                )


def _transaction(record: Mapping[str, Any]) -> CreditTransaction:
    values = dict(record)
    for name in _TIMES:
        values[name] = None if values[name] is None else datetime.fromisoformat(values[name])
    for name in _HASHES:
        values[name] = _bytes(values[name])
    values["type"] = TransactionType[values["type"]]
    values["allocations"] = [Allocation(**each) for each in values["allocations"]]
    return CreditTransaction(**values)


def _receipt(record: Mapping[str, Any]) -> Receipt:
    return Receipt(
        transaction_id=record["transaction_id"],
        sequence=record["sequence"],
        # Receipts of 0.3.0 have no hash.
        hash=_bytes(record.get("hash", "")),
        validated=record.get("validated", False),
    )


def _bytes(text: str) -> bytes:
    return b64decode(text, validate=True)
