"""A checkpoint: the signed root of a Merkle tree over the heads of all users in an app.

A head is the hash of a user's latest transaction in the app. `merkle` has the tree. The signed text
has the form of https://c2sp.org/tlog-checkpoint and https://c2sp.org/signed-note. This module does
not make or check signatures, because that needs a library.
"""

from base64 import b64decode, b64encode
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from credit_models.merkle import leaf_hash, root_of_path

# The type of an Ed25519 key in a signed note.
_ED25519 = b"\x01"
_ORIGIN = "credit.v1/app/"
_TIME = "time "
# A line with a signature begins with an em dash and a space.
_SIGNATURE = "\N{EM DASH} "
_KEY_ID_BYTES = 4
_UINT32_MAX = 2**32 - 1


class CheckpointInvalid(Exception):
    """The text is no checkpoint, or not the expected one. The message has the reason."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """A leaf of the tree of a checkpoint, with its audit path.

    Attributes:
        user_id: The user.
        head: The user's head.
        index: The number of leaves before this one.
        path: The audit path, the hash next to the leaf first.
    """

    user_id: int
    head: bytes
    index: int
    path: Sequence[bytes]


def proven_head(checkpoint: Checkpoint, user_id: int, leaves: Sequence[Leaf]) -> bytes | None:
    """Return the head that a checkpoint has for a user; None: it has no head for this user.

    Args:
        checkpoint: The checkpoint, whose signature was checked.
        user_id: The user.
        leaves: The proof: the user's leaf or, if there is none, the leaves before and after it.

    Raises:
        CheckpointInvalid: The leaves prove neither a head nor that there is none.
    """
    for leaf in leaves:
        if not 0 < leaf.user_id <= _UINT32_MAX:
            raise CheckpointInvalid(f"the proof names user {leaf.user_id}, who cannot exist")
        start = leaf_hash(leaf.user_id, leaf.head)
        root = root_of_path(start, leaf.index, checkpoint.size, leaf.path)
        if root != checkpoint.root:
            raise CheckpointInvalid(
                f"the proof of user {leaf.user_id} does not lead to the signed root"
            )
    for leaf in leaves:
        if leaf.user_id == user_id:
            return leaf.head
    # The leaves are in the order of the users, so one of this user would be between these two.
    before = max((leaf.index for leaf in leaves if leaf.user_id < user_id), default=-1)
    after = min((leaf.index for leaf in leaves if leaf.user_id > user_id), default=checkpoint.size)
    if after != before + 1:
        raise CheckpointInvalid(f"it has no proof for user {user_id}")
    return None


def proof_indexes(user_id: int, users: Sequence[int], *, first: int, size: int) -> list[int]:
    """Return the indexes of the leaves that prove what a tree has for a user.

    It is the user's leaf or, if there is none, the leaves before and after it. Only one of these
    exists at either end of the tree, and none in an empty tree.

    Args:
        user_id: The user.
        users: The users of adjacent leaves, in their order, in which the user's leaf is if the tree
            has one, and if not, the leaf before it.
        first: The index of the first of these leaves.
        size: The number of leaves of the tree.
    """
    after = first + bisect_left(users, user_id)
    if after - first < len(users) and users[after - first] == user_id:
        return [after]
    return [index for index in (after - 1, after) if 0 <= index < size]


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
