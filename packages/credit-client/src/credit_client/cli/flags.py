"""The command's own names in the SDK's errors: `--credits` and not `credits`."""

import re

from credit_client.cli.connection import Connection
from credit_client.cli.times import duration_text
from credit_client.errors import (
    ActorNotAllowed,
    CreditError,
    HoldLifeExceeded,
    IdempotencyKeyReused,
    InvalidField,
    NotReversible,
    ResumeTokenInvalid,
    ReversalExceeds,
)
from credit_client.settings import ClientSettings

_OF_FIELD = {
    "after_sequence": "--after",
    "app_id": "--app",
    "caps.per_day": "--day",
    "caps.per_hour": "--hour",
    "caps.per_month": "--month",
    "created_by": "--by",
    "created_from": "--since",
    "created_until": "--until",
    "credits": "--credits",
    "delta": "--delta",
    "effective_at": "--starts",
    "expected_revision": "--expected-revision",
    "expires_after_seconds": "--expires",
    "expires_at": "--expires",
    "grant_id": "--grant",
    "hold_id": "--hold",
    "idempotency_key": "--key",
    "metadata": "--metadata",
    "min_available_after": "--min-available-after",
    "min_revision": "--min-revision",
    "note": "--note",
    "priority": "--priority",
    "purpose": "--purpose",
    "related_id": "--related",
    "report_id": "--report",
    "report_name": "--name",
    "restore_until": "--restore-until",
    "resume_token": "--from",
    "to_app_id": "--to-app",
    "to_user_id": "--to-user",
    "transaction_id": "--transaction",
    "user_id": "--user",
}

# An option of a connection, by the setting that it changes.
_OF_SETTING = {
    "target": "target",
    "timeout_seconds": "timeout",
    "tls": "tls",
    "tls_ca": "tls_ca",
    "tls_client_certificate": "client_certificate",
    "tls_client_key": "client_key",
    "token_file": "token_file",
    "users_app_id": "users_app",
    "token_insecure": "insecure",
}

# The SDK's arguments, as its errors write them. The first one that matches counts.
_OF_ARGUMENT = {
    "connect with a client certificate": "pass --client-certificate",
    "insecure=True": "--insecure",
    "send the header 'authorization: Bearer <token>'": "set CREDIT_TOKEN or pass --token-file",
    "tls=True": "--tls",
    "`client_certificate`": "--client-certificate",
    "`client_key`": "--client-key",
    "as `tls`": "with --tls-ca",
    "`tls`": "--tls",
    "set users_app_id": "pass --users-app",
}

# A name of one word, such as `target`, is a setting's only where a clause begins.
_SETTING = re.compile(
    "|".join(
        rf"\b{name}\b" if "_" in name else rf"(?:^|(?<=; )){name}\b(?!=)"
        for name in sorted(ClientSettings.model_fields, key=len, reverse=True)
    )
)


def sentence_of(error: CreditError) -> str:
    """Return the text of an error, with the command's options for fields and arguments."""
    names: set[str] = set()
    if isinstance(error, InvalidField):
        # A description may name other fields. Skip names of one word: in a text they may be
        # ordinary words, not fields.
        names = {violation.field for violation in error.violations}
        names |= {name for name in _OF_FIELD if "_" in name}
    elif isinstance(error, IdempotencyKeyReused):
        names = set(error.fields)
    elif isinstance(error, ResumeTokenInvalid):
        names = {"resume_token"}
    text = _with_durations(error, str(error))
    for name in names & _OF_FIELD.keys():
        text = re.sub(rf"\b{re.escape(name)}\b", _OF_FIELD[name], text)
    if isinstance(error, NotReversible | ReversalExceeds):
        # `ReverseTransaction` has two directions; the command for both is `credit refund`.
        text = text.replace("reversed", "refunded")
    elif isinstance(error, ActorNotAllowed):
        actor = f"in the name of {error.created_by}"
        text = text.replace(actor, f"{actor}: set --by or CREDIT_BY to the identity's actor")
    return _with_options(text)


def _with_durations(error: CreditError, text: str) -> str:
    """Replace numbers of seconds by durations in the command's format: 604800 by 7d."""
    if isinstance(error, InvalidField):
        for violation in error.violations:
            if violation.field.endswith("_seconds"):
                shown = re.sub(
                    r"[0-9]+", lambda it: duration_text(int(it[0])), violation.description
                )
                text = text.replace(
                    f"{violation.field} {violation.description}", f"{violation.field} {shown}"
                )
    elif isinstance(error, HoldLifeExceeded):
        seconds = error.limit_seconds
        text = text.replace(f"{seconds} seconds", duration_text(seconds))
    return text


def settings_sentence(error: ValueError, connection: Connection) -> str:
    """Return the text of a rejected setting, with the option or variable that has set it."""

    def origin(match: re.Match[str]) -> str:
        name = match[0]
        option = _OF_SETTING.get(name)
        if option is not None and getattr(connection, option) is not None:
            return "--" + option.replace("_", "-")
        return f"CREDIT_{name.upper()}"

    return _with_options(_SETTING.sub(origin, str(error)))


def _with_options(text: str) -> str:
    for argument, option in _OF_ARGUMENT.items():
        text = text.replace(argument, option)
    return text
