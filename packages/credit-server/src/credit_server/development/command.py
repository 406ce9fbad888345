"""The command `credit-server token`: keys, certificates and tokens for development."""

import argparse
import math
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from credit_models.scopes import SCOPES

from credit_server.access import FileUnusable
from credit_server.access.identity import CreditsMax
from credit_server.development.certificate import (
    end_of,
    find_certificates,
    key_of,
    make_certificates,
)
from credit_server.development.token import (
    AUDIENCE,
    ISSUER,
    Grant,
    find_keys,
    issue_token,
    make_keys,
)

_DIRECTORY = Path(".credit-keys")
_CLIENT = "spiffe://localhost/credit-client"
_ID_MAX = 2**32 - 1


def run(arguments: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0 if all went well, 1 if a file is in the way or unusable.

    Raises:
        SystemExit: With 2 for misuse, or with 0 after the help.
    """
    options = _parser().parse_args(arguments)
    try:
        match options.action:
            case "keys":
                lines = _keys(options)
            case "certificates":
                lines = _certificates(options)
            case _:
                lines = [_issue(options)]
    except FileUnusable as error:
        print(f"credit-server: {error}", file=sys.stderr)  # noqa: T201 - a command speaks
        return 1
    print("\n".join(lines))  # noqa: T201
    return 0


def _keys(options: argparse.Namespace) -> list[str]:
    # A second terminal needs the variables too, and the same keys.
    found = find_keys(options.directory)
    private, public = found or make_keys(options.directory)
    if found:
        _remark(f"The keys in {options.directory} are used as they are.")
    _remark(f"{private} signs tokens and {public} verifies them. These variables start the server:")
    return [
        _export("CREDIT_TOKEN_KEYS", public.resolve()),
        _export("CREDIT_TOKEN_ISSUER", _issuer()),
        _export("CREDIT_TOKEN_AUDIENCE", _audience()),
    ]


def _certificates(options: argparse.Namespace) -> list[str]:
    found = find_certificates(options.directory, client=options.client)
    files = found or make_certificates(
        options.directory, client=options.client or _CLIENT, days=options.days
    )
    if found:
        _remark(
            f"The certificates in {options.directory} are used as they are; they hold until"
            f" {end_of(files.server):%Y-%m-%d %H:%M} UTC."
        )
    _remark(
        f"A client needs {files.ca}, {files.client} and {key_of(files.client)};"
        " CREDIT_IDENTITIES_FILE says what its owner may do. These variables start the server:"
    )
    return [
        _export("CREDIT_TLS_CERTIFICATE", files.server.resolve()),
        _export("CREDIT_TLS_KEY", key_of(files.server).resolve()),
        _export("CREDIT_TLS_CLIENT_CA", files.ca.resolve()),
        _export("CREDIT_TLS_CLIENT_AUTH", "optional"),
    ]


def _issue(options: argparse.Namespace) -> str:
    grant = Grant(
        subject=options.subject,
        scopes=options.scopes,
        apps=options.apps,
        actor=options.actor,
        impersonate=options.impersonate,
        credits_max=options.credits_max,
        minutes=options.minutes,
        issuer=options.issuer,
        audience=options.audience,
    )
    return issue_token(options.key, grant)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="credit-server token",
        description="Make keys, certificates and tokens for development. What is printed on"
        ' standard output is for the shell: eval "$(credit-server token keys)". Keys and'
        " certificates that are there already are used as they are.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    keys = actions.add_parser("keys", help="make a key pair that signs and verifies tokens")
    certificates = actions.add_parser(
        "certificates", help="make a CA, a certificate for localhost, and one for a client"
    )
    for action in (keys, certificates):
        action.add_argument(
            "--directory", type=Path, default=_DIRECTORY, help=f"where to (default: {_DIRECTORY})"
        )
    certificates.add_argument(
        "--client",
        type=_text,
        help=f"SPIFFE id or common name of the client (default: {_CLIENT})",
    )
    certificates.add_argument(
        "--days", type=_positive, default=30.0, help="how long they hold (default: 30)"
    )
    _add_issue(actions.add_parser("issue", help="print a token"))
    return parser


def _add_issue(issue: argparse.ArgumentParser) -> None:
    issue.add_argument(
        "--key", type=Path, required=True, help="file of the private key, such as keys has made"
    )
    issue.add_argument("--subject", type=_text, required=True, help="who calls")
    issue.add_argument(
        "--scopes",
        type=_scopes,
        required=True,
        help=f"what calls they may make, separated by commas: {', '.join(sorted(SCOPES))}",
    )
    issue.add_argument(
        "--apps", type=_apps, default=[], help="apps, separated by commas, or '*' (default: none)"
    )
    issue.add_argument("--actor", type=_id, help="the created_by that they give (default: none)")
    issue.add_argument("--impersonate", action="store_true", help="they may give any created_by")
    issue.add_argument(
        "--credits-max",
        type=_credits_max,
        help="the most credits that they may add in one call: a number, or numbers by app such as"
        " '1=500,*=100' (default: the server's limit)",
    )
    issue.add_argument(
        "--minutes", type=_positive, default=60.0, help="how long it holds (default: 60)"
    )
    issue.add_argument(
        "--issuer", type=_text, default=_issuer(), help="CREDIT_TOKEN_ISSUER (default: %(default)s)"
    )
    issue.add_argument(
        "--audience",
        type=_text,
        default=_audience(),
        help="CREDIT_TOKEN_AUDIENCE (default: %(default)s)",
    )


def _issuer() -> str:
    return os.environ.get("CREDIT_TOKEN_ISSUER") or ISSUER


def _audience() -> str:
    return os.environ.get("CREDIT_TOKEN_AUDIENCE") or AUDIENCE


def _text(value: str) -> str:
    if not value or not value.isprintable():
        raise argparse.ArgumentTypeError("it must have characters, and all of them printable")
    return value


def _positive(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number <= 525_600:  # a year of minutes
        raise argparse.ArgumentTypeError("it must be a number above 0 and at most 525600")
    return number


def _id(value: str) -> int:
    if not (value.isascii() and value.isdigit() and 1 <= int(value[:11]) <= _ID_MAX):
        raise argparse.ArgumentTypeError(f"it must be a number from 1 to {_ID_MAX}")
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
            raise argparse.ArgumentTypeError(f"it must give app {app} one limit")
        limits[app] = _id(limit)
    return limits


def _scopes(value: str) -> list[str]:
    scopes = value.split(",")
    if not SCOPES.issuperset(scopes):
        raise argparse.ArgumentTypeError(f"there are only {', '.join(sorted(SCOPES))}")
    return scopes


def _export(name: str, value: object) -> str:
    return f"export {name}={shlex.quote(str(value))}"


def _remark(sentence: str) -> None:
    print(f"# {sentence}", file=sys.stderr)  # noqa: T201 - beside what is for the shell
