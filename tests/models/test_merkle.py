"""Compare the roots and audit paths of a checkpoint's tree with the definition of RFC 6962."""

from hashlib import sha256

import pytest
from credit_models.merkle import (
    LeavesOutOfOrder,
    MerkleTree,
    audit_path,
    leaf_hash,
    root_of_path,
)


def _root(leaves: list[bytes]) -> bytes:
    """Return the root as RFC 6962, section 2.1, defines it."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha256(b"\x01" + _root(leaves[:half]) + _root(leaves[half:])).digest()


def test_the_root_is_that_of_rfc_6962() -> None:
    tree, leaves = MerkleTree(), list[bytes]()
    for number in range(70):
        assert (tree.size, tree.root()) == (number, _root(leaves))
        user_id, head = number * 3 + 1, b"\x01" + bytes([number]) * 32
        tree.add(user_id, head)
        leaves.append(user_id.to_bytes(4, "big") + head)


@pytest.mark.parametrize("user_id", [0, 6, 7, 2**32])
def test_users_are_added_in_their_order(user_id: int) -> None:
    tree = MerkleTree()
    tree.add(7, b"")
    with pytest.raises(LeavesOutOfOrder, match=f"user {user_id} is listed after user 7"):
        tree.add(user_id, b"")


def _path(leaves: list[bytes], index: int) -> list[bytes]:
    """Return the audit path as RFC 6962, section 2.1.1, defines it."""
    if len(leaves) == 1:
        return []
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    if index < half:
        return [*_path(leaves[:half], index), _root(leaves[half:])]
    return [*_path(leaves[half:], index - half), _root(leaves[:half])]


SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 31, 33)
LEAVES = [(number + 1).to_bytes(4, "big") + bytes([number]) for number in range(max(SIZES))]


@pytest.mark.parametrize("size", SIZES)
def test_audit_paths_are_those_of_rfc_6962_and_lead_to_the_root(size: int) -> None:
    nodes = [leaf_hash(number + 1, bytes([number])) for number in range(size)]
    for index in range(size):
        path, root = audit_path(nodes, index)
        assert (path, root) == (_path(LEAVES[:size], index), _root(LEAVES[:size]))
        assert root_of_path(nodes[index], index, size, path) == root


@pytest.mark.parametrize("size", SIZES)
def test_another_leaf_index_size_or_path_does_not_lead_to_the_root(size: int) -> None:
    nodes = [leaf_hash(number + 1, bytes([number])) for number in range(size)]
    for index in range(size):
        path, root = audit_path(nodes, index)
        leaf = nodes[index]
        assert root_of_path(leaf_hash(index + 1, b"x"), index, size, path) != root
        for other in {-1, *range(size + 1)} - {index}:
            assert root_of_path(leaf, other, size, path) != root
        # A path whose length does not fit the tree is rejected.
        assert root_of_path(leaf, index, size, [*path, leaf]) is None
        if path:
            assert root_of_path(leaf, index, size, path[:-1]) is None
            assert root_of_path(leaf, index, size, [*path[:-1], leaf]) != root
