"""Keys that verify tokens: read by the server's own parser, and judged beyond what it rejects."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from credit_server.access import FileUnusable
from credit_server.access.keys import VerifyingKey, is_pem, parse_keys
from credit_server.access.watched_file import WatchedFile
from credit_server.doctor.finding import Finding, fails, ok, warning
from credit_server.doctor.permissions import changeable_by_others

_CHECK = "token keys"
_REMEDY = "name a PEM file of public keys, or a JWKS file with a public key for signatures"


def check_token_keys(path: Path, algorithms: Sequence[str]) -> list[Finding]:
    """Judge the file of public keys.

    Args:
        path: A PEM file of public keys, or a JSON Web Key Set.
        algorithms: The algorithms that the server accepts. Keys for others, such as an identity
            provider's key for encryption, are ignored, as the server does.
    """
    try:
        pem, keys = WatchedFile(path, partial(_read, algorithms=algorithms)).current()
    except FileUnusable as error:
        return [fails(_CHECK, str(error), _REMEDY)]
    faults = []
    if not pem and any(key.kid is None for key in keys):
        faults.append(
            warning(
                _CHECK,
                f"{path} has a key without an id: a new key cannot be added beside it",
                "give each key a `kid`, and put it into the header of the tokens",
            )
        )
    changeable = changeable_by_others(path, _CHECK)
    if changeable is not None:
        faults.append(changeable)
    named = ", ".join(sorted({key.algorithm for key in keys}))
    return faults or [ok(_CHECK, f"{path} has {len(keys)} public keys that sign by {named}")]


def _read(data: bytes, algorithms: Sequence[str]) -> tuple[bool, tuple[VerifyingKey, ...]]:
    """Return whether a file is PEM, whose keys have no ids, and its keys."""
    return is_pem(data), parse_keys(data, algorithms).keys
