"""The command `credit-server token`: keys, certificates and tokens for development.

Each command imports what it runs: the import of jwt and cryptography takes a tenth of the start
time, and `credit-server serve` imports this file for its help.
"""

import math
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from credit_models.scopes import SCOPES

from credit_server.access.identity import CreditsMax

ISSUER = "credit-development"
AUDIENCE = "credit"

_CLIENT = "spiffe://localhost/credit-client"
_ID_MAX = 2**32 - 1
_MINUTES_OF_A_YEAR = 525_600

cli = typer.Typer(
    no_args_is_help=True,
    help="Make keys, certificates and tokens for development. The standard output is for the shell:"
    ' eval "$(credit-server token keys)". Existing keys and certificates are used as they are.',
)


_Directory = Annotated[Path, typer.Option(metavar="PATH", help="Folder of the files.")]
_DIRECTORY = Path(".credit-keys")


@cli.command()
def keys(directory: _Directory = _DIRECTORY) -> None:
    """Make a key pair that signs and verifies tokens."""
    from credit_server.development.token import (  # noqa: PLC0415 - see the top of the file
        find_keys,
        make_keys,
    )

    # A second terminal needs the variables too, and the same keys.
    found = find_keys(directory)
    private, public = found or make_keys(directory)
    if found:
        _remark(f"The keys in {directory} are used as they are.")
    _remark(f"{private} signs tokens and {public} verifies them. These variables start the server:")
    _export("CREDIT_TOKEN_KEYS", public.resolve())
    _export("CREDIT_TOKEN_ISSUER", _issuer())
    _export("CREDIT_TOKEN_AUDIENCE", _audience())


@cli.command(short_help="Make a CA, and certificates for localhost and a client.")
def certificates(
    directory: _Directory = _DIRECTORY,
    client: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"SPIFFE id or common name of the client. Without it: {_CLIENT}.",
        ),
    ] = None,
    days: Annotated[
        str, typer.Option(metavar="DAYS", help="Time that the certificates are valid.")
    ] = "30",
) -> None:
    """Make a CA, a certificate for localhost, and one for a client."""
    from credit_server.development.certificate import (  # noqa: PLC0415 - see the top of the file
        end_of,
        find_certificates,
        key_of,
        make_certificates,
    )

    validity = _valid("--days", _positive, days)
    name = None if client is None else _valid("--client", _text, client)
    found = find_certificates(directory, client=name)
    files = found or make_certificates(directory, client=name or _CLIENT, days=validity)
    if found:
        _remark(
            f"The certificates in {directory} are used as they are; they are valid until"
            f" {end_of(files.server):%Y-%m-%d %H:%M} UTC."
        )
    _remark(
        f"A client needs {files.ca}, {files.client} and {key_of(files.client)}."
        " CREDIT_IDENTITIES_FILE defines what its owner may do. These variables start the server:"
    )
    _export("CREDIT_TLS_CERTIFICATE", files.server.resolve())
    _export("CREDIT_TLS_KEY", key_of(files.server).resolve())
    _export("CREDIT_TLS_CLIENT_CA", files.ca.resolve())
    _export("CREDIT_TLS_CLIENT_AUTH", "optional")


@cli.command()
def issue(
    key: Annotated[
        Path,
        typer.Option(metavar="PATH", help="File of the private key, such as `keys` has made."),
    ],
    subject: Annotated[str, typer.Option(metavar="NAME", help="Identity of the token's owner.")],
    scopes: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Calls that the owner may make, separated by commas:"
            f" {', '.join(sorted(SCOPES))}.",
        ),
    ],
    apps: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Apps of the owner, separated by commas, or * for all apps."
        ),
    ] = None,
    actor: Annotated[
        str | None, typer.Option(metavar="ID", help="The created_by that the owner gives.")
    ] = None,
    impersonate: Annotated[
        bool, typer.Option("--impersonate", help="Allow the owner to give any created_by.")
    ] = False,
    credits_max: Annotated[
        str | None,
        typer.Option(
            metavar="COUNT|APP=COUNT,...",
            help="The most credits that the owner may add in one call: a number, or numbers by app"
            " such as '1=500,*=100'. Without it the server's limit applies.",
        ),
    ] = None,
    minutes: Annotated[
        str, typer.Option(metavar="MINUTES", help="Time that the token is valid.")
    ] = "60",
    issuer: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="The token's iss. Without it CREDIT_TOKEN_ISSUER, or the iss that"
            f" `keys` exports: {ISSUER}.",
        ),
    ] = None,
    audience: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="The token's aud. Without it CREDIT_TOKEN_AUDIENCE, or the aud"
            f" that `keys` exports: {AUDIENCE}.",
        ),
    ] = None,
) -> None:
    """Print a token."""
    from credit_server.development.token import (  # noqa: PLC0415 - see the top of the file
        Grant,
        issue_token,
    )

    grant = Grant(
        subject=_valid("--subject", _text, subject),
        scopes=_valid("--scopes", _scopes, scopes),
        apps=[] if apps is None else _valid("--apps", _apps, apps),
        actor=None if actor is None else _valid("--actor", _id, actor),
        impersonate=impersonate,
        credits_max=(
            None if credits_max is None else _valid("--credits-max", _credits_max, credits_max)
        ),
        minutes=_valid("--minutes", _positive, minutes),
        issuer=_issuer() if issuer is None else _valid("--issuer", _text, issuer),
        audience=_audience() if audience is None else _valid("--audience", _text, audience),
    )
    typer.echo(issue_token(key, grant))


_Value = TypeVar("_Value")


def _valid(option: str, parse: Callable[[str], _Value], text: str) -> _Value:
    """Parse an option's value, or end as misused."""
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}", param_hint=option) from None


def _text(value: str) -> str:
    if not value or not value.isprintable():
        raise ValueError("it must have characters, and all of them printable")
    return value


def _positive(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number <= _MINUTES_OF_A_YEAR:
        raise ValueError(f"it must be a number above 0 and at most {_MINUTES_OF_A_YEAR}")
    return number


def _id(value: str) -> int:
    if not (value.isascii() and value.isdigit() and 1 <= int(value[:11]) <= _ID_MAX):
        raise ValueError(f"it must be a number from 1 to {_ID_MAX}")
    return int(value)


def _apps(value: str) -> list[int] | None:
    return None if value == "*" else [_id(part) for part in value.split(",")]


def _credits_max(value: str) -> CreditsMax:
    if "=" not in value:
        return _id(value)
    limits = {}
    for part in value.split(","):
        app, _, limit = part.partition("=")
        if app != "*":
            app = str(_id(app))
        if app in limits:
            raise ValueError(f"it must give app {app} one limit")
        limits[app] = _id(limit)
    return limits


def _scopes(value: str) -> list[str]:
    scopes = value.split(",")
    if not SCOPES.issuperset(scopes):
        raise ValueError(f"the scopes are {', '.join(sorted(SCOPES))}")
    return scopes


def _issuer() -> str:
    return os.environ.get("CREDIT_TOKEN_ISSUER") or ISSUER


def _audience() -> str:
    return os.environ.get("CREDIT_TOKEN_AUDIENCE") or AUDIENCE


def _export(name: str, value: object) -> None:
    typer.echo(f"export {name}={shlex.quote(str(value))}")


def _remark(sentence: str) -> None:
    """Print a sentence beside what is for the shell."""
    typer.echo(f"# {sentence}", err=True)
