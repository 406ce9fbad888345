"""Checkpoints: the heads of an app's users, and the operator's signature of all of them.

`credit-server checkpoint` makes a checkpoint. Its file has a JSON object on each line: one for each
user with `user_id` and `hash`, and at the end one with the signed `checkpoint`. A server returns
the same `checkpoint` with a proof for one user. `Checkpoint.save` writes both into a file.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from credit_models.checkpoint import Checkpoint as Stated
from credit_models.checkpoint import CheckpointInvalid, Leaf, proven_head, read_checkpoint
from credit_models.merkle import LeavesOutOfOrder, MerkleTree

from credit_client.errors import CheckpointRejected

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The heads of an app's users at a time, as the operator signed them.

    Attributes:
        app_id: The app.
        time: Every transaction that was acknowledged before this time is covered.
        size: The number of users whose transactions in the app have hashes.
        heads: The hash of each user's latest transaction in the app, for all users or those of
            `user_ids`. A user without such a hash is missing.
        user_ids: The users that can be compared with the checkpoint; None: all.
        note: The signed text.
        leaves: The proof of the heads; None: they come from the operator's file of all users.
    """

    app_id: int
    time: datetime
    size: int
    heads: Mapping[int, bytes]
    user_ids: Collection[int] | None = None
    note: str = field(default="", repr=False)
    leaves: Sequence[Leaf] | None = field(default=None, repr=False)

    def head(self, user_id: int) -> bytes | None:
        """Return the hash of a user's latest transaction in the app; None: there is no hash.

        Raises:
            ValueError: The checkpoint was loaded without this user.
        """
        if self.user_ids is not None and user_id not in self.user_ids:
            raise ValueError(
                f"the checkpoint was loaded without user {user_id}, so it cannot show whether the"
                " history was changed"
            )
        return self.heads.get(user_id)

    def save(self, file: str | Path) -> None:
        """Write the checkpoint and its proof into a new file, which `load_checkpoint` reads.

        Raises:
            ValueError: The checkpoint was loaded from the operator's file, and has no proof. Copy
                that file.
            OSError: The file exists or cannot be written.
        """
        if self.user_ids is None or self.leaves is None:
            raise ValueError(
                "only a checkpoint that a server returned can be saved: copy the operator's file"
            )
        record = {
            "user_id": next(iter(self.user_ids), None),
            "leaves": [
                {
                    "user_id": leaf.user_id,
                    "hash": b64encode(leaf.head).decode(),
                    "index": leaf.index,
                    "path": [b64encode(each).decode() for each in leaf.path],
                }
                for leaf in self.leaves
            ],
            "checkpoint": self.note,
        }
        with Path(file).open("x", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")


def load_checkpoint(
    file: str | Path, *, key: str | Path, user_ids: Collection[int] | None = None
) -> Checkpoint:
    """Read a checkpoint, and check its signature. Needs `credit-client[verify]`.

    Args:
        file: The file that `credit-server checkpoint`, `credit checkpoint` or `Checkpoint.save`
            wrote.
        key: The file with the operator's public key: Ed25519, in PEM.
        user_ids: The users whose heads are kept; None: all, which needs 0.2 GB for a million. A
            file of `credit checkpoint` or `Checkpoint.save` has the head of one user.

    Returns:
        The checkpoint.

    Raises:
        CheckpointRejected: A file has the wrong format, or the checkpoint is not signed with the
            key.
        ImportError: The extra is not installed.
        OSError: A file cannot be read.
    """
    public_key = load_key(key)
    tree, heads = MerkleTree(), dict[int, bytes]()
    try:
        last: dict[str, Any] = {}
        with Path(file).open(encoding="utf-8") as lines:
            for line in lines:
                if last:
                    raise CheckpointInvalid("there are lines after the signed checkpoint")
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise TypeError("a line has no JSON object")
                if "checkpoint" in record:
                    last = record
                    continue
                user_id, head = int(record["user_id"]), b64decode(record["hash"], validate=True)
                tree.add(user_id, head)
                if user_ids is None or user_id in user_ids:
                    heads[user_id] = head
        note = str(last.get("checkpoint", ""))
        if "leaves" in last:
            return proven(note, public_key, last["user_id"], _leaves_of(last))
        stated = _checked(note, public_key)
        if (stated.size, stated.root) != (tree.size, tree.root()):
            raise CheckpointInvalid("its heads are not those that were signed")
    except (CheckpointInvalid, LeavesOutOfOrder) as error:
        raise CheckpointRejected(f"{file}: {error}") from error
    # A number can be too large (OverflowError), and a line nested too deeply (RecursionError).
    except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointRejected(f"{file}: it is not a checkpoint") from error
    return Checkpoint(
        app_id=stated.app_id,
        time=stated.time,
        size=stated.size,
        heads=heads,
        user_ids=None if user_ids is None else frozenset(user_ids),
        note=note,
    )


def load_key(key: str | Path) -> "Ed25519PublicKey":
    """Read the operator's public key.

    Raises:
        CheckpointRejected: The file has no such key.
        ImportError: The extra is not installed.
        OSError: The file cannot be read.
    """
    try:
        return _public_key(Path(key).read_bytes())
    except CheckpointInvalid as error:
        raise CheckpointRejected(f"{key}: {error}") from error


def proven(
    note: str, key: "Ed25519PublicKey", user_id: int | None, leaves: Sequence[Leaf]
) -> Checkpoint:
    """Check a signed checkpoint and the proof for a user.

    Args:
        note: The signed text.
        key: The operator's public key.
        user_id: The user; None: no proof is checked.
        leaves: The proof.

    Raises:
        CheckpointInvalid: The signature or the proof is not valid.
    """
    stated = _checked(note, key)
    head = None if user_id is None else proven_head(stated, user_id, leaves)
    return Checkpoint(
        app_id=stated.app_id,
        time=stated.time,
        size=stated.size,
        heads={} if user_id is None or head is None else {user_id: head},
        user_ids=frozenset() if user_id is None else frozenset({user_id}),
        note=note,
        leaves=leaves,
    )


# Any: the values of JSON.
def _leaves_of(record: Mapping[str, Any]) -> list[Leaf]:
    return [
        Leaf(
            user_id=int(leaf["user_id"]),
            head=b64decode(leaf["hash"], validate=True),
            index=int(leaf["index"]),
            path=[b64decode(each, validate=True) for each in leaf["path"]],
        )
        for leaf in record["leaves"]
    ]


def _public_key(pem: bytes) -> "Ed25519PublicKey":
    try:
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PublicKey,
        )
        from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415
    except ImportError:
        raise ImportError(
            "checkpoints need the package cryptography: run make wheels in a clone of the"
            " repository, then pip install ./dist/*.whl 'credit-client[verify]'"
        ) from None
    try:
        key = load_pem_public_key(pem)
    except (UnsupportedAlgorithm, ValueError):
        raise CheckpointInvalid("the key is not a public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise CheckpointInvalid("the key is not an Ed25519 key")
    return key


def _checked(note: str, key: "Ed25519PublicKey") -> Stated:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - see `_public_key`

    stated, signature = read_checkpoint(note, key.public_bytes_raw())
    try:
        key.verify(signature, stated.text.encode())
    except InvalidSignature:
        raise CheckpointInvalid("its signature is not valid: it was changed afterwards") from None
    return stated
