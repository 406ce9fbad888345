"""Tokens: which prove an identity, which do not, and that no other error is raised."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
from credit_server.access import Identity, Unauthenticated
from credit_server.access.identity import TokenRules
from credit_server.access.keys import KeySet, parse_keys
from credit_server.access.tokens import TokenVerifier
from credit_server.access.watched_file import LOOK_SECONDS, WatchedFile
from hypothesis import given
from hypothesis import strategies as st

from tests.server.access.signing import (
    AUDIENCE,
    ISSUER,
    NOW,
    Clock,
    PrivateKey,
    claims,
    ec_key,
    ed_key,
    forge,
    jwk,
    jwks,
    public_pem,
    replace,
    rsa_key,
    sign,
)

PINNED = ("ES256", "EdDSA", "RS256")
LEEWAY = 30
SHOP = Identity(
    name="shop",
    scopes=frozenset({"credits:spend", "credits:read"}),
    apps=frozenset({1, 2}),
    actor=7,
    may_impersonate=False,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_bytes(public_pem(ec_key()))
    return path


def verifier(path: Path, clock: Clock, **rules: Any) -> TokenVerifier:
    watched: WatchedFile[KeySet] = WatchedFile(
        path, partial(parse_keys, algorithms=PINNED), setting="CREDIT_TOKEN_KEYS", clock=clock
    )
    full = {"issuer": ISSUER, "audience": AUDIENCE, "leeway_seconds": LEEWAY, **rules}
    return TokenVerifier(watched, TokenRules(**full), clock=clock)


@pytest.fixture
def tokens(path: Path, clock: Clock) -> TokenVerifier:
    return verifier(path, clock)


def refusal(tokens: TokenVerifier, token: str) -> str:
    """Return the sentence of a rejection, which never reveals the token."""
    with pytest.raises(Unauthenticated) as refused:
        tokens.verify(token)
    sentence = str(refused.value)
    assert not any(part in sentence for part in token.split(".") if len(part) > 3)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    return sentence


def test_a_sound_token_proves_its_identity(tokens: TokenVerifier) -> None:
    assert tokens.verify(sign()) == SHOP
    assert tokens.verify(sign()) == SHOP, "again, when it is remembered"


@pytest.mark.parametrize("algorithm", PINNED)
def test_every_pinned_algorithm_is_taken(algorithm: str, path: Path, clock: Clock) -> None:
    keys: dict[str, PrivateKey] = {"ES256": ec_key(), "EdDSA": ed_key(), "RS256": rsa_key()}
    key = keys[algorithm]
    path.write_bytes(public_pem(key))
    token = sign(key=key, algorithm=algorithm)
    assert verifier(path, clock).verify(token) == SHOP


@pytest.mark.parametrize("kind", ["JWT", "at+jwt", "AT+JWT", "application/at+jwt"])
def test_a_token_that_is_for_access_is_taken(kind: str, tokens: TokenVerifier) -> None:
    assert tokens.verify(sign(typ=kind)) == SHOP


def test_a_token_without_a_type_is_taken(tokens: TokenVerifier) -> None:
    token = sign(typ=None)
    assert "typ" not in jwt.get_unverified_header(token)
    assert tokens.verify(token) == SHOP


@pytest.mark.parametrize("kind", ["", 5, ["JWT"], "id+jwt", "dpop+jwt", "JOSE"])
def test_a_token_of_another_type_is_rejected(kind: object, tokens: TokenVerifier) -> None:
    assert "type" in refusal(tokens, forge({"typ": kind, "alg": "ES256"}, claims()))


# ---- forged


FORGED: dict[str, Callable[[], str]] = {
    "unsigned": lambda: forge({"typ": "JWT", "alg": "none"}, claims()),
    "unsigned, in capitals": lambda: forge({"typ": "JWT", "alg": "NONE"}, claims()),
    "the public key as a shared secret": lambda: forge(
        {"typ": "JWT", "alg": "HS256"}, claims(), public_pem(ec_key())
    ),
    "a signature left out": lambda: forge({"typ": "JWT", "alg": "ES256"}, claims()),
    "a secret's signature passed for another": lambda: forge(
        {"typ": "JWT", "alg": "ES256"}, claims(), public_pem(ec_key())
    ),
    "another key": lambda: sign(key=ec_key(1)),
    "another kind of key": lambda: sign(key=rsa_key(), algorithm="RS256"),
    "an algorithm that is not pinned": lambda: sign(key=rsa_key(), algorithm="PS256"),
    "a key that it brings along": lambda: sign(
        key=ec_key(1), jwk=jwk(ec_key(1).public_key(), "ES256"), jku="https://evil.example/keys"
    ),
    "claims of another token": lambda: ".".join(
        [sign().split(".")[0], sign(claims(sub="root")).split(".")[1], sign().split(".")[2]]
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_rejected(name: str, tokens: TokenVerifier) -> None:
    assert "signature does not hold" in refusal(tokens, FORGED[name]())


def test_an_algorithm_that_is_not_text_is_rejected(tokens: TokenVerifier) -> None:
    assert "malformed" in refusal(tokens, forge({"typ": "JWT", "alg": ["ES256"]}, claims()))
    assert "malformed" in refusal(tokens, forge({"typ": "JWT"}, claims()))


def test_a_token_with_critical_extensions_is_rejected(tokens: TokenVerifier) -> None:
    header = {"typ": "JWT", "alg": "ES256", "b64": True, "crit": ["b64"]}
    assert "extensions" in refusal(tokens, forge(header, claims()))


def test_the_source_of_keys_that_a_token_names_does_not_matter(tokens: TokenVerifier) -> None:
    token = sign(jku="https://evil.example/keys", x5u="https://evil.example/certificate")
    assert tokens.verify(token) == SHOP


def test_the_kid_of_another_key_does_not_help(path: Path, clock: Clock) -> None:
    path.write_bytes(
        jwks(*(jwk(ec_key(number).public_key(), "ES256", kid=str(number)) for number in (1, 2)))
    )
    tokens = verifier(path, clock)
    assert tokens.verify(sign(key=ec_key(1), kid="1")) == SHOP
    assert "signature" in refusal(tokens, sign(key=ec_key(1), kid="2"))
    assert "signature" in refusal(tokens, sign(key=ec_key(1), kid="3"))
    assert "signature" in refusal(tokens, sign(key=ec_key(1)))


# ---- claims


@pytest.mark.parametrize("expires", [NOW - LEEWAY + 0.5, NOW - LEEWAY + 1, NOW, NOW + 1])
def test_a_token_holds_until_its_end_and_the_leeway(expires: float, tokens: TokenVerifier) -> None:
    assert tokens.verify(sign(claims(exp=expires, iat=...))) == SHOP


@pytest.mark.parametrize("expires", [NOW - LEEWAY, NOW - LEEWAY - 1, 0])
def test_an_expired_token_is_rejected(expires: int, tokens: TokenVerifier) -> None:
    assert "expired" in refusal(tokens, sign(claims(exp=expires)))


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_a_token_begins_with_the_leeway(name: str, tokens: TokenVerifier) -> None:
    assert tokens.verify(sign(claims(**{name: NOW + LEEWAY}))) == SHOP
    assert "not valid yet" in refusal(tokens, sign(claims(**{name: NOW + LEEWAY + 1})))


def test_a_remembered_token_expires_all_the_same(tokens: TokenVerifier, clock: Clock) -> None:
    token = sign()
    tokens.verify(token)
    assert len(tokens._verified) == 1
    clock.now += 600 + LEEWAY
    assert "expired" in refusal(tokens, token)
    assert not len(tokens._verified)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"iss": "https://evil.example"}, "issuer is not trusted"),
        ({"iss": 5}, "issuer is not trusted"),
        ({"iss": [ISSUER]}, "issuer is not trusted"),
        ({"iss": ...}, "no claim 'iss'"),
        ({"aud": "other"}, "another audience"),
        ({"aud": ["other"]}, "another audience"),
        ({"aud": {AUDIENCE: 1}}, "another audience"),
        ({"aud": []}, "no claim 'aud'"),
        ({"aud": ...}, "no claim 'aud'"),
    ],
)
def test_a_token_for_another_audience_is_rejected(
    changes: dict[str, Any], sentence: str, tokens: TokenVerifier
) -> None:
    assert sentence in refusal(tokens, _signed(claims(**changes)))


def test_the_audience_may_be_one_of_several(tokens: TokenVerifier) -> None:
    assert tokens.verify(sign(claims(aud=["other", AUDIENCE]))) == SHOP


BAD_CLAIMS: dict[str, list[Any]] = {
    "sub": [..., None, "", 7, "a\nb", "a\x1b[2J", "\ud800", "x" * 513],
    "exp": [..., None, "1800000600", True, -1, 1e300, float("nan"), float("inf"), [NOW]],
    "nbf": ["0", False, -1],
    "iat": ["0", {}],
    "scope": [["credits:spend"], 1, None],
    "apps": [None, 1, "1", "1,2", ["1"], [1.0], [True], [0], [-1], [2**32], {"1": 1}, ["*"]],
    "actor": ["7", 0, 2**32, True, 7.0],
    "impersonate": [1, "true", None],
    "credits_max": [
        *["5", 0, -1, 2**32, 5.0, True, [5]],
        *[{app: 5} for app in ("01", "0", "4294967296", "all", "1,2", "")],
        *[{"1": limit} for limit in ("5", 0, None)],
    ],
    "cnf": [{"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}, {"jkt": "x"}, {}, False],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD_CLAIMS.items() for value in values]
)
def test_a_claim_of_the_wrong_kind_is_rejected_by_name(
    name: str, value: Any, tokens: TokenVerifier
) -> None:
    assert f"claim '{name}'" in refusal(tokens, _signed(claims(**{name: value})))


def _signed(content: dict[str, Any]) -> str:
    """Sign claims of types that PyJWT would not sign."""
    payload = json.dumps(content).encode()
    return jwt.PyJWS().encode(payload, ec_key(), "ES256")


def test_a_token_without_rights_has_none(tokens: TokenVerifier) -> None:
    token = sign(claims(scope=..., apps=..., actor=...))
    assert tokens.verify(token) == Identity(
        name="shop", scopes=frozenset(), apps=frozenset(), actor=None, may_impersonate=False
    )


def test_a_star_is_for_all_apps(tokens: TokenVerifier) -> None:
    assert tokens.verify(sign(claims(apps="*"))).apps is None
    assert tokens.verify(sign(claims(impersonate=True))).may_impersonate
    assert tokens.verify(sign(claims(apps=[2**32 - 1]))).apps == frozenset({2**32 - 1})


@pytest.mark.parametrize(
    ("credits_max", "limits"),
    [
        (..., (None, None)),
        (500, (500, 500)),
        (2**32 - 1, (2**32 - 1, 2**32 - 1)),
        ({"1": 500}, (500, None)),
        ({"1": 500, "*": 100}, (500, 100)),
        ({}, (None, None)),
    ],
)
def test_a_token_may_limit_what_one_call_adds_in_all_apps_or_by_app(
    credits_max: object, limits: tuple[int | None, int | None], tokens: TokenVerifier
) -> None:
    add_limits = tokens.verify(sign(claims(credits_max=credits_max))).add_limits
    assert (add_limits.of(1), add_limits.of(2)) == limits


def test_unknown_scopes_are_passed_over(tokens: TokenVerifier) -> None:
    token = sign(claims(scope="openid credits:read credits:everything CREDITS:ADMIN"))
    assert tokens.verify(token).scopes == {"credits:read"}


# ---- keys that change


def test_a_new_key_is_known_when_a_token_first_names_it(path: Path, clock: Clock) -> None:
    path.write_bytes(jwks(jwk(ec_key(1).public_key(), "ES256", kid="1")))
    tokens = verifier(path, clock)
    token = sign(key=ec_key(2), kid="2")
    clock.now += LOOK_SECONDS
    tokens.verify(sign(key=ec_key(1), kid="1"))
    replace(path, jwks(jwk(ec_key(2).public_key(), "ES256", kid="2")))
    assert tokens.verify(token) == SHOP


def test_a_key_that_is_taken_away_ends_its_tokens(path: Path, clock: Clock) -> None:
    tokens = verifier(path, clock)
    token = sign()
    tokens.verify(token)
    replace(path, public_pem(ec_key(1)))
    clock.now += LOOK_SECONDS
    assert "signature" in refusal(tokens, token)
    assert tokens.verify(sign(key=ec_key(1))) == SHOP


def test_a_broken_file_invalidates_no_tokens(path: Path, clock: Clock) -> None:
    tokens = verifier(path, clock)
    replace(path, b"broken")
    clock.now += LOOK_SECONDS
    assert tokens.verify(sign()) == SHOP


# ---- limits


def test_a_token_that_is_too_long_is_not_read(path: Path, clock: Clock) -> None:
    token = sign()
    assert verifier(path, clock, length_max=len(token)).verify(token) == SHOP
    short = verifier(path, clock, length_max=len(token) - 1)
    assert f"longer than {len(token) - 1} characters" in refusal(short, token)


def test_tokens_are_remembered_up_to_a_number(path: Path, clock: Clock) -> None:
    tokens = verifier(path, clock, cache_max=2)
    first, second, third = (sign(claims(sub=name)) for name in "abc")
    tokens.verify(first)
    tokens.verify(second)
    tokens.verify(first)
    tokens.verify(third)
    found = [tokens.recognize(token) is not None for token in (first, second, third)]
    assert found == [True, False, True], "the one that was not used for longest is gone"


def test_none_is_remembered_where_that_is_asked(path: Path, clock: Clock) -> None:
    tokens = verifier(path, clock, cache_max=0)
    assert tokens.verify(sign()) == SHOP
    assert not len(tokens._verified)


def test_forged_tokens_are_not_remembered(tokens: TokenVerifier) -> None:
    for make in FORGED.values():
        refusal(tokens, make())
    refusal(tokens, sign(claims(exp=0)))
    assert not len(tokens._verified)


# ---- anything at all

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
_HEADER = st.dictionaries(st.sampled_from(["alg", "kid", "crit", "b64", "jwk", "x"]), _JSON)
_CLAIMS = st.dictionaries(st.sampled_from(sorted(claims())), _JSON)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> TokenVerifier:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_bytes(public_pem(ec_key()) + public_pem(rsa_key()) + public_pem(ed_key()))
    return verifier(path, Clock())


@given(token=st.text() | st.text("ab.=-_", min_size=3))
def test_any_text_is_rejected(lasting: TokenVerifier, token: str) -> None:
    with pytest.raises(Unauthenticated):
        lasting.verify(token)


@given(
    header=_HEADER,
    content=_CLAIMS | _JSON,
    algorithm=st.sampled_from([*PINNED, "none", "HS256"]),
    secret=st.none() | st.binary(),
)
def test_any_parts_are_rejected(
    lasting: TokenVerifier, header: Any, content: Any, algorithm: str, secret: bytes | None
) -> None:
    with pytest.raises(Unauthenticated):
        lasting.verify(forge({"typ": "JWT", "alg": algorithm, **header}, content, secret))


@given(parts=st.lists(st.binary(max_size=40), min_size=3, max_size=3))
def test_any_bytes_are_rejected(lasting: TokenVerifier, parts: list[bytes]) -> None:
    header, content, secret = parts
    with pytest.raises(Unauthenticated):
        lasting.verify(forge(header, content, secret))


@given(changes=_CLAIMS)
def test_any_signed_claims_are_rejected_or_prove_an_identity(
    lasting: TokenVerifier, changes: dict[str, Any]
) -> None:
    try:
        identity = lasting.verify(_signed(claims(**changes)))
    except Unauthenticated:
        return
    assert identity.name
    assert identity.apps is None or all(1 <= app < 2**32 for app in identity.apps)


@given(where=st.integers(min_value=0), bit=st.integers(0, 6))
def test_one_changed_letter_is_one_too_many(lasting: TokenVerifier, where: int, bit: int) -> None:
    token = sign(key=ed_key(), algorithm="EdDSA")
    place = where % len(token)
    changed = token[:place] + chr(ord(token[place]) ^ (1 << bit)) + token[place + 1 :]
    with pytest.raises(Unauthenticated):
        lasting.verify(changed)
