"""Verifies bearer tokens: JWTs (RFC 7519), by the rules of RFC 8725 and RFC 9068."""

import time
from collections.abc import Callable
from hashlib import sha256
from typing import Annotated, Any, NoReturn

import jwt
from cachetools import LRUCache
from credit_models.scopes import SCOPES
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from credit_server.access.identity import (
    Apps,
    CreditsMax,
    Identity,
    Name,
    TokenRules,
    Uint32,
    Unauthenticated,
    add_limits_of,
    apps_of,
)
from credit_server.access.keys import KeySet, VerifyingKey
from credit_server.access.watched_file import WatchedFile

__all__ = ["Claims", "TokenVerifier"]

# RFC 7519, section 2, NumericDate; up to the year 9999.
_Date = Annotated[int | float, Field(ge=0, le=253_402_300_799, allow_inf_nan=False)]

# RFC 9068, section 2.1, and RFC 7515, section 4.1.9: any case, with or without the media type.
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_SIGNATURE = "The token's signature does not hold here: get a new one from its issuer."


class Claims(BaseModel):
    """The claims that the server reads; a token may have others.

    Attributes:
        sub: Who calls.
        exp: When the token expires, in seconds since 1970.
        nbf: When it becomes valid.
        iat: When it was issued.
        scope: The calls that its owner may make, separated by spaces; unknown ones are ignored.
        apps: The apps that its owner may act in and read, or `*` for all; none if it is missing.
        actor: The `created_by` that its owner sends.
        impersonate: Whether its owner may send any `created_by`.
        credits_max: The most credits that its owner may add in one call, in all apps or by app.
        cnf: The key that the token is bound to, which must be none. The caller would have to prove
            that it has the key, and a thief of such a token must not be let in without that proof
            (RFC 7800; RFC 9449, section 7.1).
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", hide_input_in_errors=True)

    sub: Name
    exp: _Date
    nbf: _Date | None = None
    iat: _Date | None = None
    scope: str = ""
    apps: Apps = []
    actor: Uint32 | None = None
    impersonate: bool = False
    credits_max: CreditsMax | None = None
    cnf: None = None

    def check_time(self, now: float, *, leeway_seconds: float) -> None:
        """Check that the token is valid at a time.

        Args:
            now: Seconds since 1970.
            leeway_seconds: How far the issuer's clock may be off.

        Raises:
            Unauthenticated: It has expired or is not valid yet.
        """
        if self.exp <= now - leeway_seconds:
            raise Unauthenticated("The token has expired: get a new one from its issuer.")
        if max(self.nbf or 0, self.iat or 0) > now + leeway_seconds:
            raise Unauthenticated(
                "The token is not valid yet: wait, or compare the clocks of this client, the"
                " issuer and the server."
            )

    def identity(self) -> Identity:
        """Return the identity that the claims describe."""
        return Identity(
            name=self.sub,
            scopes=SCOPES.intersection(self.scope.split(" ")),
            apps=apps_of(self.apps),
            actor=self.actor,
            may_impersonate=self.impersonate,
            add_limits=add_limits_of(self.credits_max),
        )


# What a token has proved. Its time is checked at each use.
_Verified = tuple[Claims, Identity]


class TokenVerifier:
    """Verifies tokens against the keys of a file.

    The check of a signature (ES256) takes 250 µs, that of a remembered token 3 µs. Only verified
    tokens are remembered, the most recently used ones: forged tokens cannot evict them.
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
            rules: What is demanded of a token.
            clock: Returns seconds since 1970.
        """
        self._keys = keys
        self._rules = rules
        self._clock = clock
        # By the tokens' hashes, with the keys that verified them.
        self._verified: LRUCache[bytes, _Verified] = LRUCache(rules.cache_max)
        self._verified_by: KeySet | None = None

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
            _reject_malformed()
        claims = self._prove(token)
        claims.check_time(self._clock(), leeway_seconds=self._rules.leeway_seconds)
        identity = claims.identity()
        if self._rules.cache_max:
            self._verified[_digest(token)] = claims, identity
        return identity

    def recognize(self, token: str) -> Identity | None:
        """Return the identity of a token that is remembered and still valid, or None."""
        keys = self._keys.current()
        if keys is not self._verified_by:
            self._verified.clear()
            self._verified_by = keys
        digest = _digest(token)
        verified = self._verified.get(digest)
        if verified is None:
            return None
        claims, identity = verified
        try:
            claims.check_time(self._clock(), leeway_seconds=self._rules.leeway_seconds)
        except Unauthenticated:
            del self._verified[digest]
            return None
        return identity

    def _prove(self, token: str) -> Claims:
        """Check everything but the time, and return the claims."""
        algorithm, kid = _header(token)
        candidates = self._keys.current().candidates(kid, algorithm)
        if not candidates:
            # The issuer may already use a key that was written a moment ago.
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
            _reject("The token's issuer is not trusted here: get one from this server's issuer.")
        except jwt.InvalidAudienceError:
            _reject("The token is for another audience: ask its issuer for one for this server.")
        except jwt.MissingRequiredClaimError as error:
            _reject(f"The token has no claim '{error.claim}': ask its issuer for one that has.")
        except jwt.PyJWTError:
            _reject_malformed()


def _header(token: str) -> tuple[str, str | None]:
    """Return the algorithm and the kid that a token names; nothing else of its header counts.

    Parameters that name a source of keys (`jku`, `x5u`, `jwk`) are ignored.
    """
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        _reject_malformed()
    kind = header.get("typ", "JWT")  # RFC 7519, section 5.1: it is optional
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        _reject("The token's type is neither JWT nor at+jwt: send an access token.")
    if "crit" in header or "b64" in header:
        _reject("The token needs extensions that are not known here: get one without 'crit'.")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        _reject_malformed()
    return algorithm, header.get("kid")


def _reject_malformed() -> NoReturn:
    _reject("The token is malformed: send a JWT as its issuer gave it.")


def _reject(sentence: str) -> NoReturn:
    # PyJWT's own message may quote the token.
    raise Unauthenticated(sentence) from None


def _digest(token: str) -> bytes:
    # A token in memory is a secret that a core dump would reveal; its hash is not.
    # surrogatepass: it may be any text, and not only what a header can hold.
    return sha256(token.encode(errors="surrogatepass")).digest()
