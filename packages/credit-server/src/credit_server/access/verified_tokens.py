"""A bounded memory of verified tokens, so that a signature is checked once and not per call."""

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256

from credit_server.access.claims import Claims
from credit_server.access.identity import Identity
from credit_server.access.keys import KeySet


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifiedToken:
    """What a token has proved. Its time is not part of that: it is checked at each use.

    Attributes:
        claims: What it says.
        identity: Whom it proves.
    """

    claims: Claims
    identity: Identity


class VerifiedTokens:
    """Remembers tokens by their hash; the least recently used one goes first.

    Only tokens that hold get in: forged ones cannot push them out.
    """

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._keys: KeySet | None = None
        self._tokens: OrderedDict[bytes, VerifiedToken] = OrderedDict()

    def get(self, token: str, keys: KeySet) -> VerifiedToken | None:
        """Return what a token has proved to these keys; other keys forget all."""
        if keys is not self._keys:
            self._tokens.clear()
            self._keys = keys
        digest = _digest(token)
        verified = self._tokens.get(digest)
        if verified is not None:
            self._tokens.move_to_end(digest)
        return verified

    def remember(self, token: str, verified: VerifiedToken) -> None:
        """Remember what a token has proved, to the keys that `get` was given or to newer ones."""
        self._tokens[_digest(token)] = verified
        if len(self._tokens) > self._count_max:
            self._tokens.popitem(last=False)

    def forget(self, token: str) -> None:
        """Forget a token, as one that has expired."""
        self._tokens.pop(_digest(token), None)

    def __len__(self) -> int:
        return len(self._tokens)


def _digest(token: str) -> bytes:
    # A token in memory is a secret that a core dump would tell; its hash is none.
    # surrogatepass: it may be any text, and not only what a header holds.
    return sha256(token.encode(errors="surrogatepass")).digest()
