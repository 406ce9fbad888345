"""Client certificates: their names, and what the operator's file allows their owners."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from credit_server.access import FileUnusable, Identity, Unauthenticated
from credit_server.access.certificates import CertificateIdentities, identity_parser, name_of
from credit_server.access.watched_file import LOOK_SECONDS, WatchedFile

from tests.server.access.signing import NOW, Clock, replace

SHOP = "spiffe://example.org/shop"
TOML = """
["spiffe://example.org/shop"]
scopes = ["credits:spend", "credits:read"]
apps = [1, 2]
actor = 7

["CN=admin,O=Example"]
scopes = ["credits:admin"]
apps = "*"
impersonate = true
"""

Parse = Callable[[str], object]


def certificate(*uris: str, names: Any = (), not_after: str = "Jan 16 08:00:00 2027 GMT") -> Any:
    """Return what `getpeercert` returns; the certificate expires shortly after NOW."""
    return {
        "subject": names,
        "subjectAltName": (("DNS", "shop.example.org"), *(("URI", uri) for uri in uris)),
        "notAfter": not_after,
    }


COMMON_NAME = ((("organizationName", "Example"),), (("commonName", "admin"),))


def identities(tmp_path: Path, clock: Clock) -> CertificateIdentities:
    path = tmp_path / "identities.toml"
    path.write_text(TOML)
    return CertificateIdentities(
        WatchedFile(path, identity_parser(path), setting="CREDIT_FILE", clock=clock), clock=clock
    )


def test_a_listed_owner_has_the_permissions_in_the_file(tmp_path: Path) -> None:
    file = identities(tmp_path, Clock())
    assert file.identify(certificate(SHOP)) == Identity(
        name=SHOP,
        scopes=frozenset({"credits:spend", "credits:read"}),
        apps=frozenset({1, 2}),
        actor=7,
        may_impersonate=False,
    )
    admin = file.identify(certificate(names=COMMON_NAME))
    assert (admin.name, admin.apps, admin.may_impersonate) == ("CN=admin,O=Example", None, True)


@pytest.mark.parametrize(
    "found",
    [
        certificate("spiffe://example.org/other"),
        certificate("SPIFFE://example.org/shop"),
        certificate("spiffe://example.org/other", names=COMMON_NAME),
        certificate("https://example.org/shop"),
        certificate(names=(*COMMON_NAME, (("organizationalUnitName", "x"),))),
        certificate(names=((("commonName", SHOP),),)),
        certificate(),
    ],
)
def test_an_owner_who_is_not_listed_is_rejected(found: Any, tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated, match="owner is not known here"):
        identities(tmp_path, Clock()).identify(found)


@pytest.mark.parametrize(
    "other", ["spiffe://example.org/b", SHOP, "SPIFFE://example.org/shop", "https://example.org"]
)
def test_another_uri_beside_a_spiffe_id_is_rejected(other: str, tmp_path: Path) -> None:
    for uris in ((SHOP, other), (other, SHOP)):
        with pytest.raises(Unauthenticated, match="more than one URI"):
            identities(tmp_path, Clock()).identify(certificate(*uris))


def test_a_certificate_that_expires_on_an_open_connection_is_rejected(tmp_path: Path) -> None:
    clock = Clock()
    file = identities(tmp_path, clock)
    file.identify(certificate(SHOP))
    clock.now = NOW + 365 * 86400
    with pytest.raises(Unauthenticated, match="expired"):
        file.identify(certificate(SHOP))


def test_an_owner_who_is_removed_from_the_list_is_rejected(tmp_path: Path) -> None:
    clock = Clock()
    file = identities(tmp_path, clock)
    file.identify(certificate(SHOP))
    replace(tmp_path / "identities.toml", b"")
    clock.now += LOOK_SECONDS
    with pytest.raises(Unauthenticated):
        file.identify(certificate(SHOP))


@pytest.mark.parametrize(
    ("names", "written"),
    [
        ((), ""),
        (COMMON_NAME, "CN=admin,O=Example"),
        (((("commonName", "a"), ("userId", "b")),), "CN=a+UID=b"),
        (((("commonName", "admin,O=Example"),),), "CN=admin\\,O\\=Example"),
        (((("commonName", ' a"+;<>\\ '),),), 'CN=\\ a\\"\\+\\;\\<\\>\\\\\\ '),
        (((("commonName", "#1"),),), "CN=\\#1"),
        (((("commonName", " "),),), "CN=\\ "),
        (((("emailAddress", "a@b"),),), "emailAddress=a@b"),
    ],
)
def test_a_subject_is_written_so_that_none_passes_for_another(names: Any, written: str) -> None:
    assert name_of(certificate(names=names)) == written


def entry(**changes: Any) -> str:
    return json.dumps({"shop": {"scopes": ["credits:read"], **changes}})


def test_a_file_may_be_json(tmp_path: Path) -> None:
    parsed = identity_parser(tmp_path / "identities.json")(entry(apps=[3]).encode())
    assert parsed["shop"].apps == frozenset({3})
    assert parsed["shop"].actor is None


def test_the_file_may_limit_what_one_call_adds_in_all_apps_or_by_app(tmp_path: Path) -> None:
    toml = TOML.replace("actor = 7", 'credits_max = {1 = 500, "*" = 100}')
    toml = toml.replace("impersonate = true", "credits_max = 9")
    parsed = identity_parser(tmp_path / "identities.toml")(toml.encode())
    shop, admin = (parsed[name].add_limits for name in (SHOP, "CN=admin,O=Example"))
    assert (shop.of(1), shop.of(2), admin.of(1)) == (500, 100, 9)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no json", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "must be an object"),
        ('{"shop": {}}', "shop → scopes"),
        ('{"": {"scopes": []}}', "must not be empty"),
        ('{"a\\nb": {"scopes": []}}', "cannot be printed"),
        (entry(scopes=["credits:everything"]), "there is no such scope"),
        (entry(scopes="credits:read"), "shop → scopes"),
        (entry(apps=["1"]), "shop → apps"),
        (entry(apps=[0]), "shop → apps"),
        (entry(actor=True), "shop → actor"),
        (entry(impersonate="yes"), "shop → impersonate"),
        (entry(impersonates=True), "shop → impersonates"),
        (entry(credits_max=0), "shop → credits_max"),
        (entry(credits_max={"one": 5}), "an app's number"),
        ('{"a": {"scopes": [], "credits_max": {"1": 5, "1": 500}}}', "'1' twice"),
        ('{"a": {"scopes": []}, "a": {"scopes": ["credits:read"]}}', "'a' twice"),
        ('{"a": {"scopes": [], "apps": [1], "apps": "*"}}', "'apps' twice"),
    ],
)
def test_an_ambiguous_file_is_rejected(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "identities.json"
    path.write_text(text)
    with pytest.raises(FileUnusable, match=reason) as refused:
        WatchedFile(path, identity_parser(path), setting="CREDIT_FILE")
    assert "\n" not in str(refused.value)


def test_a_toml_file_that_is_not_toml_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "identities.toml"
    path.write_text(entry())
    with pytest.raises(FileUnusable, match="not TOML"):
        WatchedFile(path, identity_parser(path), setting="CREDIT_FILE")
