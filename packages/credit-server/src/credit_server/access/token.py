"""Verifies bearer tokens: JWTs (RFC 7519) as RFC 8725 and RFC 9068 want them verified."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import jwt
from pydantic import ValidationError

from credit_server.access.claims import Claims
from credit_server.access.errors import Unauthenticated
from credit_server.access.identity import Identity
from credit_server.access.keys import KeySet, VerifyingKey
from credit_server.access.verified_tokens import VerifiedToken, VerifiedTokens
from credit_server.access.watched_file import WatchedFile

__all__ = ["TokenRules", "TokenVerifier"]

# RFC 9068, section 2.1, and RFC 7515, section 4.1.9: in any case, with or without the media type.
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_SIGNATURE = "The token's signature does not hold here: get a new one from its issuer."


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRules:
    """What a token must be like.

    Attributes:
        issuer: Its `iss`.
        audience: Its `aud`, or one of them.
        leeway_seconds: How far the issuer's clock may be off.
        length_max: Its characters at most.
        cache_max: How many verified tokens are remembered; 0: none.
    """

    issuer: str
    audience: str
    leeway_seconds: float = 30.0
    length_max: int = 8192
    cache_max: int = 10_000


class TokenVerifier:
    """Verifies tokens against the keys of a file.

    A signature (ES256) takes 250 µs to check, and a token that is remembered 3 µs.
    """

    def __init__(
        self,
        keys: WatchedFile[KeySet],
        rules: TokenRules,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare to verify.

        Args:
            keys: The file of keys.
            rules: What a token must be like.
            clock: Tells seconds since 1970.
        """
        self._keys = keys
        self._rules = rules
        self._clock = clock
        self._verified = VerifiedTokens(rules.cache_max)

    def verify(self, token: str) -> Identity:
        """Return the identity that a token proves.

        Raises:
            Unauthenticated: It proves none.
        """
        identity = self.recognize(token)
        if identity is not None:
            return identity
        if len(token) > self._rules.length_max:
            raise Unauthenticated(
                f"The token is longer than {self._rules.length_max} characters: ask its issuer for"
                " one with fewer claims."
            )
        if not token.isascii():
            _refuse_malformed()
        claims = self._prove(token)
        claims.check_time(self._clock(), leeway_seconds=self._rules.leeway_seconds)
        verified = VerifiedToken(claims=claims, identity=claims.identity())
        self._verified.remember(token, verified)
        return verified.identity

    def recognize(self, token: str) -> Identity | None:
        """Return the identity of a token that is remembered and holds still; None: it is not."""
        verified = self._verified.get(token, self._keys.current())
        if verified is None:
            return None
        try:
            verified.claims.check_time(self._clock(), leeway_seconds=self._rules.leeway_seconds)
        except Unauthenticated:
            self._verified.forget(token)
            return None
        return verified.identity

    def _prove(self, token: str) -> Claims:
        """Check all but the time."""
        algorithm, kid = _header(token)
        candidates = self._keys.current().candidates(kid, algorithm)
        if not candidates:
            # The issuer may have begun to use a key that was written a moment ago.
            candidates = self._keys.current_now().candidates(kid, algorithm)
        for key in candidates:
            try:
                content = self._decode(token, key)
            except jwt.InvalidSignatureError:
                continue
            try:
                return Claims.model_validate(content)
            except ValidationError as error:
                name = error.errors(include_input=False)[0]["loc"][0]
                raise Unauthenticated(
                    f"The token's claim '{name}' is missing, or not what it must be: ask its issuer"
                    " for one with sound claims."
                ) from None
        raise Unauthenticated(_SIGNATURE)

    # Any: JSON of any shape.
    def _decode(self, token: str, key: VerifyingKey) -> dict[str, Any]:
        """Check signature, issuer and audience."""
        try:
            return jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                audience=self._rules.audience,
                issuer=self._rules.issuer,
                # The rest is checked by `Claims`: the times at each use of a remembered token.
                options={
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_sub": False,
                },
            )
        except jwt.InvalidSignatureError:
            raise
        except jwt.InvalidIssuerError:
            _refuse("The token's issuer is not trusted here: get one from this server's issuer.")
        except jwt.InvalidAudienceError:
            _refuse("The token is for another audience: ask its issuer for one for this server.")
        except jwt.MissingRequiredClaimError as error:
            _refuse(f"The token has no claim '{error.claim}': ask its issuer for one that has.")
        except jwt.PyJWTError:
            _refuse_malformed()


def _header(token: str) -> tuple[str, str | None]:
    """Return the algorithm and the kid that a token names; nothing else of its header counts.

    Where it says how to get a key (`jku`, `x5u`, `jwk`), that is passed over.
    """
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        _refuse_malformed()
    kind = header.get("typ", "JWT")  # RFC 7519, section 5.1: it is optional
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        _refuse("The token's type is neither JWT nor at+jwt: send an access token.")
    if "crit" in header or "b64" in header:
        _refuse("The token needs extensions that are not known here: get one without 'crit'.")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        _refuse_malformed()
    return algorithm, header.get("kid")


def _refuse_malformed() -> NoReturn:
    _refuse("The token is malformed: send a JWT as its issuer gave it.")


def _refuse(sentence: str) -> NoReturn:
    # Not what PyJWT says: that may quote the token.
    raise Unauthenticated(sentence) from None
