"""Merkle trees: published roots, proofs of every pair, and proofs that are wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.ledger import merkle, tiles

# The well-known test entries of Certificate Transparency implementations and the roots over the first 1 to 8.
ENTRIES = [bytes.fromhex(h) for h in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
ENTRIES.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


class Tree:
    """A log in memory, on tiles, that grew by the given steps."""

    def __init__(self) -> None:
        self.tiles: dict[tuple[int, int], bytes] = {}
        self.size = 0

    def add(self, leaves: list[bytes]) -> None:
        for level, index, content in list(tiles.appended(self.size, leaves, self.read)):
            self.tiles[level, index] = content
        self.size += len(leaves)

    def read(self, level: int, index: int) -> bytes:
        return self.tiles[level, index]

    @property
    def node(self) -> merkle.Node:
        return tiles.nodes(self.read)


def plain_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, as it is written there."""
    if len(leaves) < 2:
        return leaves[0] if leaves else merkle.EMPTY
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return merkle.parent(plain_root(leaves[:k]), plain_root(leaves[k:]))


def grown(size: int, step: int = 7) -> tuple[Tree, list[bytes]]:
    tree, leaves = Tree(), [merkle.leaf(i.to_bytes(4, "big")) for i in range(size)]
    for start in range(0, size, step):
        tree.add(leaves[start : start + step])
    return tree, leaves


def test_roots_equal_the_published_ones() -> None:
    tree = Tree()
    assert merkle.root(0, tree.node).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for count, (entry, root) in enumerate(zip(ENTRIES, ROOTS, strict=True), start=1):
        tree.add([merkle.leaf(entry)])
        assert merkle.root(count, tree.node).hex() == root


def test_roots_equal_the_definition_across_tiles() -> None:
    tree, leaves = grown(600)
    for size in (1, 2, 3, 255, 256, 257, 511, 512, 513, 600):
        assert merkle.root(size, tree.node) == plain_root(leaves[:size])


def test_every_inclusion_and_consistency_proof_of_a_small_tree_verifies_and_no_other_does() -> None:
    tree, leaves = grown(33)
    roots = [merkle.root(size, tree.node) for size in range(34)]
    for size in range(1, 34):
        for index in range(size):
            proof = merkle.inclusion(index, size, tree.node)
            assert merkle.verify_inclusion(leaves[index], index, size, proof, roots[size])
            assert not merkle.verify_inclusion(leaves[index], index, size, proof, roots[size - 1])
            if size > 1:
                assert not merkle.verify_inclusion(leaves[index], (index + 1) % size, size, proof, roots[size])
                assert not merkle.verify_inclusion(leaves[index], index, size, proof[:-1], roots[size])
                assert not merkle.verify_inclusion(leaves[index], index, size, [*proof, proof[0]], roots[size])
        for old in range(size + 1):
            proof = merkle.consistency(old, size, tree.node)
            assert merkle.verify_consistency(old, size, proof, roots[old], roots[size])
            if 0 < old < size:
                assert not merkle.verify_consistency(old, size, proof, roots[old - 1], roots[size])
                assert not merkle.verify_consistency(old, size, proof, roots[old], roots[size - 1])
                assert not merkle.verify_consistency(old, size, proof[:-1], roots[old], roots[size])


@given(st.integers(1, 700), st.data())
def test_proofs_of_any_shape_verify(size: int, data: st.DataObject) -> None:
    tree, leaves = grown(size, data.draw(st.integers(1, 300)))
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    root = merkle.root(size, tree.node)
    assert merkle.verify_inclusion(leaves[index], index, size, merkle.inclusion(index, size, tree.node), root)
    before = merkle.root(old, tree.node)
    assert merkle.verify_consistency(old, size, merkle.consistency(old, size, tree.node), before, root)


@given(st.integers(-1, 40), st.integers(-1, 40), st.lists(st.binary(max_size=40), max_size=8))
def test_a_made_up_proof_is_refused_and_never_crashes(first: int, second: int, proof: list[bytes]) -> None:
    assert not merkle.verify_inclusion(merkle.leaf(b"x"), first, second, proof, bytes(32))
    assert not merkle.verify_consistency(first, second, proof, bytes(32), b"\x01" * 32)


def test_a_leaf_that_is_not_there_has_no_proof() -> None:
    tree, _ = grown(3)
    for index, size in ((3, 3), (-1, 3), (0, 0)):
        with pytest.raises(Malformed):
            merkle.inclusion(index, size, tree.node)
    with pytest.raises(Malformed):
        merkle.consistency(4, 3, tree.node)
