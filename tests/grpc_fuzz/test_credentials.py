"""Credentials: bad ones are made of good ones, and a good one is never shown."""

import base64
import json

import pytest
from grpc_fuzz.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from tests.grpc_fuzz.protocols import features

HEADER = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ"  # {"alg":"ES256","kid":"a"}
JWT = f"{HEADER}.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"
ONE = features().method("/features.v1.Features/One")


def sent(credentials: Credentials, presented: str) -> str | bytes | None:
    pairs = dict(credentials.metadata(presented))  # type: ignore[arg-type] # one of the literals
    return pairs.get(credentials.key)


def test_the_valid_token_is_sent_as_the_scheme_says() -> None:
    assert sent(Credentials(token="abc"), "valid") == "Bearer abc"
    assert Credentials(token="abc", key="x-key", scheme="").metadata("valid") == (("x-key", "abc"),)


def test_nothing_is_sent_where_credentials_are_missing() -> None:
    assert Credentials(token="abc").metadata("missing") == ()


def test_a_forged_jwt_has_the_same_claims_and_another_signature() -> None:
    forged = str(sent(Credentials(token=JWT), "forged")).removeprefix("Bearer ")

    assert forged.split(".")[:2] == JWT.split(".")[:2]
    assert len(forged) == len(JWT)
    assert forged != JWT


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=8))
def test_a_forged_token_is_never_the_valid_one(token: str) -> None:
    credentials = Credentials(token=token)
    if token.rpartition(".")[2]:
        assert credentials.metadata("forged") != credentials.metadata("valid")


def test_an_unsigned_jwt_says_so_in_its_header() -> None:
    unsigned = str(sent(Credentials(token=JWT), "unsigned")).removeprefix("Bearer ")
    header, claims, signature = unsigned.split(".")

    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {"alg": "none", "kid": "a"}
    assert (claims, signature) == ("eyJzdWIiOiJtZSJ9", "")


@pytest.mark.parametrize("token", ["opaque", "a.b.c", "bnVsbA.b.c", "é.b.c"])
def test_what_is_no_jwt_is_not_tried_unsigned(token: str) -> None:
    assert Credentials(token=token).bad() == ("missing", "forged")


def test_an_expired_token_is_tried_where_there_is_one() -> None:
    credentials = Credentials(token=JWT, expired="old")

    assert credentials.bad() == ("missing", "forged", "unsigned", "expired")
    assert sent(credentials, "expired") == "Bearer old"


def test_a_secret_token_is_shown_by_nothing_but_its_placeholder() -> None:
    credentials = Credentials(token=JWT, expired="old")

    assert "c2lnbmF0dXJl" not in repr(credentials)
    assert "old" not in repr(credentials)
    for presented in ("valid", *credentials.bad()):
        shown = str(credentials.shown(presented, "$TOKEN", "$OLD"))
        assert "c2lnbmF0dXJl" not in shown
        assert "old" not in shown


def test_a_public_method_needs_no_credentials() -> None:
    assert Credentials(token="a").protect(ONE)
    for glob in ("*", "One", "features.v1.Features/One", "/features.v1.*"):
        assert not Credentials(token="a", public=(glob,)).protect(ONE)
