"""A checkpoint: the signed root of a Merkle tree over the heads of all users in an app.

A head is the hash of a user's latest transaction in the app. The tree is that of RFC 6962, section
2.1. The signed text has the form of https://c2sp.org/tlog-checkpoint and
https://c2sp.org/signed-note. Signatures are made and checked elsewhere: they need a library.
"""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

_UINT32_MAX = 2**32 - 1

# The type of an Ed25519 key in a signed note.
_ED25519 = b"\x01"
_ORIGIN = "credit.v1/app/"
_TIME = "time "
# A line with a signature begins with an em dash and a space.
_SIGNATURE = "\N{EM DASH} "
_KEY_ID_BYTES = 4


class CheckpointInvalid(Exception):
    """The text is no checkpoint, or not the expected one. The message has the reason."""


class MerkleTree:
    """Computes the root of the heads of an app, which are added in the order of their users.

    It keeps one hash for each level of the tree: a tree of a million heads has 20 levels.

    Attributes:
        size: The number of heads.
    """

    def __init__(self) -> None:
        self.size = 0
        self._last_user = 0
        # The roots of complete subtrees, from left to right, with their numbers of leaves.
        self._roots: list[tuple[int, bytes]] = []

    def add(self, user_id: int, head: bytes) -> None:
        """Add a user's head.

        Raises:
            CheckpointInvalid: The user does not come after the user before.
        """
        if not self._last_user < user_id <= _UINT32_MAX:
            raise CheckpointInvalid(f"user {user_id} is listed after user {self._last_user}")
        self._last_user = user_id
        self.size += 1
        size, root = 1, sha256(b"\x00" + user_id.to_bytes(4, "big") + head).digest()
        while self._roots and self._roots[-1][0] == size:
            _, left = self._roots.pop()
            size, root = 2 * size, _node(left, root)
        self._roots.append((size, root))

    def root(self) -> bytes:
        """Return the root of what was added so far: 32 bytes."""
        if not self._roots:
            return sha256(b"").digest()
        root = self._roots[-1][1]
        for _, left in reversed(self._roots[:-1]):
            root = _node(left, root)
        return root


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What a checkpoint states.

    Attributes:
        app_id: The app.
        size: The number of users whose transactions in the app have hashes.
        root: The root of the tree of their heads.
        time: Every transaction that was acknowledged before this time is covered.
    """

    app_id: int
    size: int
    root: bytes
    time: datetime

    @property
    def text(self) -> str:
        """The text that is signed."""
        time = self.time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        root = b64encode(self.root).decode()
        return f"{_origin(self.app_id)}\n{self.size}\n{root}\n{_TIME}{time}\n"

    def signed(self, signature: bytes, public_key: bytes) -> str:
        """Return the text with a signature.

        Args:
            signature: The Ed25519 signature of the UTF-8 of `text`.
            public_key: The 32 bytes of the public key.
        """
        origin = _origin(self.app_id)
        value = b64encode(_key_id(origin, public_key) + signature).decode()
        return f"{self.text}\n{_SIGNATURE}{origin} {value}\n"


def read_checkpoint(note: str, public_key: bytes) -> tuple[Checkpoint, bytes]:
    """Read a signed checkpoint.

    Args:
        note: The text with its signatures. Signatures of other keys are ignored.
        public_key: The 32 bytes of the public key.

    Returns:
        The checkpoint, and the signature, which the caller must check.

    Raises:
        CheckpointInvalid: The text is no checkpoint, or has no signature of this key.
    """
    text, separator, signatures = note.partition("\n\n")
    try:
        origin, size, root, time = text.split("\n")
        if not separator or not origin.startswith(_ORIGIN) or not time.startswith(_TIME):
            raise ValueError(origin)
        checkpoint = Checkpoint(
            app_id=int(origin.removeprefix(_ORIGIN)),
            size=int(size),
            root=b64decode(root, validate=True),
            time=datetime.fromisoformat(time.removeprefix(_TIME)),
        )
        # The signature covers the text, so a text that is read and written must stay the same.
        if checkpoint.text != f"{text}\n":
            raise ValueError(text)
    except ValueError:
        raise CheckpointInvalid("it is not the checkpoint of an app") from None
    key_id = _key_id(origin, public_key)
    for line in signatures.splitlines():
        name, _, value = line.removeprefix(_SIGNATURE).partition(" ")
        if line.startswith(_SIGNATURE) and name == origin:
            decoded = _decoded(value)
            if decoded.startswith(key_id):
                return checkpoint, decoded[_KEY_ID_BYTES:]
    raise CheckpointInvalid("it is not signed with this key")


def _decoded(value: str) -> bytes:
    try:
        return b64decode(value, validate=True)
    except ValueError:
        return b""


def _origin(app_id: int) -> str:
    return f"{_ORIGIN}{app_id}"


def _key_id(origin: str, public_key: bytes) -> bytes:
    named = origin.encode() + b"\n" + _ED25519 + public_key
    return sha256(named).digest()[:_KEY_ID_BYTES]
