"""Invalid credentials are made from valid ones, and valid ones are never shown."""

import base64
import json

import pytest
from grpc_fuzz.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from tests.grpc_fuzz.contracts import features_schema

HEADER = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ"  # {"alg":"ES256","kid":"a"}
JWT = f"{HEADER}.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"
ONE = features_schema().method("/features.v1.Features/One")


def sent(credentials: Credentials, presented: str) -> str | bytes | None:
    pairs = dict(credentials.metadata(presented))  # type: ignore[arg-type] # one of the literals
    return pairs.get(credentials.key)


def test_the_valid_token_is_sent_with_its_scheme() -> None:
    assert sent(Credentials(token="abc"), "valid") == "Bearer abc"
    assert Credentials(token="abc", key="x-key", scheme="").metadata("valid") == (("x-key", "abc"),)


def test_missing_credentials_send_no_metadata() -> None:
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


def test_an_unsigned_jwt_has_the_algorithm_none() -> None:
    unsigned = str(sent(Credentials(token=JWT), "unsigned")).removeprefix("Bearer ")
    header, claims, signature = unsigned.split(".")

    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {"alg": "none", "kid": "a"}
    assert (claims, signature) == ("eyJzdWIiOiJtZSJ9", "")


@pytest.mark.parametrize("token", ["opaque", "a.b.c", "bnVsbA.b.c", "é.b.c"])
def test_a_token_that_is_no_jwt_is_not_sent_unsigned(token: str) -> None:
    assert Credentials(token=token).invalid() == ("missing", "forged")


def test_an_expired_token_is_sent_if_there_is_one() -> None:
    credentials = Credentials(token=JWT, expired="old")

    assert credentials.invalid() == ("missing", "forged", "unsigned", "expired")
    assert sent(credentials, "expired") == "Bearer old"


def test_a_secret_token_is_shown_only_as_its_placeholder() -> None:
    credentials = Credentials(token=JWT, expired="old")

    assert "c2lnbmF0dXJl" not in repr(credentials)
    assert "old" not in repr(credentials)
    for presented in ("valid", *credentials.invalid()):
        shown = str(credentials.redacted(presented, "$TOKEN", "$OLD"))
        assert "c2lnbmF0dXJl" not in shown
        assert "old" not in shown


def test_a_public_method_needs_no_credentials() -> None:
    assert Credentials(token="a").required_by(ONE)
    for glob in ("*", "One", "features.v1.Features/One", "/features.v1.*"):
        assert not Credentials(token="a", public=(glob,)).required_by(ONE)
