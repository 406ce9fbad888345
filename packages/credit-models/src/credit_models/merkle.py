"""The Merkle tree of a checkpoint, as RFC 6962, section 2.1, defines it: roots and audit paths.

A leaf is a user with a head: the hash of the user's latest transaction in the app. Leaves are in
the order of their users.
"""

from collections.abc import Sequence
from hashlib import sha256

_UINT32_MAX = 2**32 - 1


class LeavesOutOfOrder(Exception):
    """A leaf does not follow the one before it in the order of the users."""


class MerkleTree:
    """Computes the root of the heads of an app, which are added in the order of their users.

    The instance keeps one hash for each level of the tree: a tree of a million heads has 20 levels.

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
            LeavesOutOfOrder: The user's id is not greater than the id of the previous user.
        """
        if not self._last_user < user_id <= _UINT32_MAX:
            raise LeavesOutOfOrder(f"user {user_id} is listed after user {self._last_user}")
        self._last_user = user_id
        self.size += 1
        size, root = 1, leaf_hash(user_id, head)
        while self._roots and self._roots[-1][0] == size:
            _, left = self._roots.pop()
            size, root = 2 * size, _node(left, root)
        self._roots.append((size, root))

    def root(self) -> bytes:
        """Return the root of the leaves that were added so far: 32 bytes."""
        if not self._roots:
            return root_of_no_leaves()
        root = self._roots[-1][1]
        for _, left in reversed(self._roots[:-1]):
            root = _node(left, root)
        return root


def root_of_no_leaves() -> bytes:
    """Return the root of a tree without leaves: 32 bytes."""
    return sha256(b"").digest()


def leaf_hash(user_id: int, head: bytes) -> bytes:
    """Return the hash of a leaf: 32 bytes."""
    return sha256(b"\x00" + user_id.to_bytes(4, "big") + head).digest()


def audit_path(nodes: Sequence[bytes], index: int) -> tuple[list[bytes], bytes]:
    """Return the audit path of a node in the tree over some nodes, and the root of that tree.

    Args:
        nodes: The nodes of one level, at least 1: hashes of leaves, or roots of complete subtrees
            of the same size, of which the last one may be smaller.
        index: The index of the node.
    """
    path: list[bytes] = []
    while len(nodes) > 1:
        sibling = index ^ 1
        if sibling < len(nodes):
            path.append(nodes[sibling])
        pairs = [_node(*nodes[at : at + 2]) for at in range(0, len(nodes) - 1, 2)]
        # A node without a sibling becomes a node of the next level.
        nodes = pairs if len(nodes) % 2 == 0 else [*pairs, nodes[-1]]
        index //= 2
    return path, nodes[0]


def root_of_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that a leaf and its audit path lead to; None: no such path has this length.

    See https://www.rfc-editor.org/rfc/rfc9162#section-2.1.3.2.

    Args:
        leaf: The hash of the leaf.
        index: The number of leaves before this one.
        size: The number of leaves of the tree.
        path: The audit path, the hash next to the leaf first.
    """
    if not 0 <= index < size:
        return None
    root, last, hashes = leaf, size - 1, iter(path)
    while last:
        if index % 2 or index < last:  # the node has a sibling
            sibling = next(hashes, None)
            if sibling is None:
                return None
            root = _node(sibling, root) if index % 2 else _node(root, sibling)
        index, last = index // 2, last // 2
    return root if next(hashes, None) is None else None


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()
