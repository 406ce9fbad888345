"""Identifies client certificates by a file that lists their owners and what they may do."""

import json
import ssl
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from credit_models.scopes import SCOPES
from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter

from credit_server.access.identity import (
    Apps,
    CreditsMax,
    Identity,
    Name,
    Uint32,
    Unauthenticated,
    add_limits_of,
    apps_of,
)
from credit_server.access.watched_file import WatchedFile

__all__ = ["CertificateIdentities", "identity_parser", "name_of"]

Identities = Mapping[str, Identity]

# RFC 4514, section 3; the `ssl` module writes the names of RFC 5280 out.
_SHORT = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}


def _known(scope: str) -> str:
    if scope not in SCOPES:
        raise ValueError(f"there is no such scope; the scopes are {', '.join(sorted(SCOPES))}")
    return scope


class _Entry(BaseModel):
    """What one owner of a certificate may do, as the file describes it."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    scopes: list[Annotated[str, AfterValidator(_known)]]
    apps: Apps = []
    actor: Uint32 | None = None
    impersonate: bool = False
    credits_max: CreditsMax | None = None


_ENTRIES = TypeAdapter(dict[Name, _Entry])


class CertificateIdentities:
    """Identifies the owners of client certificates by a file that lists them."""

    def __init__(
        self, file: WatchedFile[Identities], *, clock: Callable[[], float] = time.time
    ) -> None:
        """Prepare to identify.

        Args:
            file: The identities by name.
            clock: Returns seconds since 1970.
        """
        self._file = file
        self._clock = clock

    # Any: the standard library's own shape.
    def identify(self, certificate: Mapping[str, Any]) -> Identity:
        """Return the identity of a verified certificate's owner.

        Raises:
            Unauthenticated: It has expired since its connection was opened, or the file does not
                list its owner.
        """
        if ssl.cert_time_to_seconds(certificate["notAfter"]) <= self._clock():
            raise Unauthenticated(
                "The client certificate has expired: connect again with a new one."
            )
        identity = self._file.current().get(name_of(certificate))
        if identity is None:
            raise Unauthenticated(
                "The client certificate's owner is not known here: ask the operator to list them."
            )
        return identity


def identity_parser(path: Path) -> Callable[[bytes], Identities]:
    """Return the parser of an identities file: TOML if its name ends in .toml, otherwise JSON.

    The file maps a SPIFFE id or a subject to `scopes`, `apps`, `actor`, `impersonate` and
    `credits_max`:

        ["spiffe://example.org/shop"]
        scopes = ["credits:spend", "credits:read"]
        apps = [1, 2]
        actor = 7
        credits_max = {1 = 500, "*" = 100}
    """
    load = _toml if path.suffix == ".toml" else _json

    def parse(data: bytes) -> Identities:
        entries = _ENTRIES.validate_python(load(data))
        return {
            name: Identity(
                name=name,
                scopes=frozenset(entry.scopes),
                apps=apps_of(entry.apps),
                actor=entry.actor,
                may_impersonate=entry.impersonate,
                add_limits=add_limits_of(entry.credits_max),
            )
            for name, entry in entries.items()
        }

    return parse


def name_of(certificate: Mapping[str, Any]) -> str:
    """Return the name of a certificate's owner.

    It is the SPIFFE id (https://spiffe.io, X509-SVID, section 2), or otherwise the subject as
    RFC 4514 writes it: `CN=shop,O=Example`. The subject of a certificate that has a SPIFFE id does
    not count.

    Raises:
        Unauthenticated: It has another URI beside its SPIFFE id, which that document forbids.
    """
    uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    ids = [uri for uri in uris if uri.lower().startswith("spiffe:")]
    if ids and len(uris) > 1:
        raise Unauthenticated(
            "The client certificate has more than one URI, and a SPIFFE id among them: connect with"
            " one that has the SPIFFE id alone."
        )
    return ids[0] if ids else _subject(certificate.get("subject", ()))


# Any: a tuple of tuples of pairs.
def _subject(subject: Any) -> str:
    parts = (
        "+".join(f"{_SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in names)
        for names in reversed(subject)
    )
    return ",".join(parts)


def _escaped(value: str) -> str:
    """Escape a value by RFC 4514, section 2.4, so that none can pass for two."""
    text = "".join(f"\\{sign}" if sign in '\\,+"<>;=' else sign for sign in value)
    if text.startswith((" ", "#")):
        text = f"\\{text}"
    return f"{text[:-1]}\\ " if text.endswith(" ") and len(value) > 1 else text


def _json(data: bytes) -> object:
    try:
        return json.loads(data, object_pairs_hook=_unique)
    except _Twice:
        raise
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON; the name of a TOML file must end in .toml") from None


class _Twice(ValueError):
    """A name occurs twice in one object. JSON's parser would silently take the last one."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    ((name, count),) = Counter(name for name, _ in pairs).most_common(1) or [("", 0)]
    if count > 1:
        raise _Twice(f"it has {name!a} twice: keep one of them")
    return dict(pairs)


def _toml(data: bytes) -> object:
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError):
        raise ValueError("it is not TOML") from None
