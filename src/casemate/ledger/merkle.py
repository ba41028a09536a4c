"""The Merkle tree of RFC 6962 section 2 (RFC 9162 section 2.1): hashes, proofs and their verification. Pure.

A tree over n entries is known by its nodes `(level, index)`: the root of the complete subtree over the 2**level leaves
from index * 2**level on. `Node` gives the hash of a complete node; where the hashes lie is the caller's affair. Hashes
are 32 bytes (SHA-256).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Sequence

from casemate.errors import Malformed

SIZE = 32
MAX_SIZE = 1 << 62
EMPTY = hashlib.sha256(b"").digest()

Node = Callable[[int, int], bytes]


def leaf(entry: bytes) -> bytes:
    """The hash of an entry (RFC 6962 section 2.1: prefix 0x00)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def parent(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node (RFC 6962 section 2.1: prefix 0x01)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def complete(hashes: Sequence[bytes]) -> bytes:
    """The root over 2**k hashes."""
    row = list(hashes)
    if not row or len(row) & (len(row) - 1):
        raise Malformed(f"merkle: {len(row)} hashes make no complete tree")
    while len(row) > 1:
        row = [parent(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]


def root(size: int, node: Node) -> bytes:
    """The root of the tree of `size` entries, from its complete nodes: at most one a level."""
    if size == 0:
        return EMPTY
    return _fold(node(level, index) for level, index in _peaks(0, size))


def extended(size: int, peaks: Sequence[bytes], leaves: Iterable[bytes]) -> tuple[bytes, ...]:
    """The peaks of a tree of `size` entries after leaf hashes were added to it; about one hash for each of them.

    Peaks are the roots of the complete subtrees, the largest first: one for each bit that is set in the size.
    """
    if len(peaks) != size.bit_count():
        raise Malformed(f"merkle: {len(peaks)} peaks are not those of a tree of {size}")
    row = list(peaks)
    for entry in leaves:
        found, below = entry, size
        while below & 1:
            found, below = parent(row.pop(), found), below >> 1
        row.append(found)
        size += 1
    return tuple(row)


def peaks(size: int, node: Node) -> tuple[bytes, ...]:
    """The peaks of the tree of `size` entries, from its nodes."""
    return tuple(node(level, index) for level, index in _peaks(0, size))


def crown(peaks: Sequence[bytes]) -> bytes:
    """The root over the peaks of a tree."""
    return _fold(peaks) if peaks else EMPTY


def inclusion(index: int, size: int, node: Node) -> list[bytes]:
    """The audit path of leaf `index` in the tree of `size` entries (RFC 6962 section 2.1.1), leaf upwards."""
    if not 0 <= index < size <= MAX_SIZE:
        raise Malformed(f"merkle: no leaf {index} in a tree of {size}")
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_range(middle, high, node))
            high = middle
        else:
            path.append(_range(low, middle, node))
            low = middle
    return path[::-1]


def consistency(old: int, new: int, node: Node) -> list[bytes]:
    """The proof that the tree of `old` entries is a prefix of that of `new` (RFC 6962 section 2.1.2)."""
    if not 0 <= old <= new <= MAX_SIZE:
        raise Malformed(f"merkle: a tree of {old} is no prefix of one of {new}")
    if old in (0, new):
        return []
    path: list[bytes] = []
    low, high, whole = 0, new, True
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_range(middle, high, node))
            high = middle
        else:
            path.append(_range(low, middle, node))
            low, whole = middle, False
    if not whole:
        path.append(_range(low, high, node))
    return path[::-1]


def verify_inclusion(entry: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes) -> bool:
    """Whether `proof` shows that the leaf hash `entry` stands at `index` below the root (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size <= MAX_SIZE or any(len(step) != SIZE for step in proof):
        return False
    place, last, found = index, size - 1, entry
    for step in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = parent(step, found)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            found = parent(found, step)
        place, last = place >> 1, last >> 1
    return last == 0 and hmac.compare_digest(found, expected)


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """Whether `proof` shows that the tree of `new` entries only added to that of `old` (RFC 9162 section 2.1.4.2)."""
    if not 0 <= old <= new <= MAX_SIZE or any(len(step) != SIZE for step in proof):
        return False
    if old in (0, new):
        start = EMPTY if old == 0 else new_root
        return not proof and hmac.compare_digest(old_root, start)
    steps = list(proof)
    if not old & (old - 1):  # the old root is itself a node of the new tree
        steps.insert(0, old_root)
    if not steps:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    before = after = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            before, after = parent(step, before), parent(step, after)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            after = parent(after, step)
        place, last = place >> 1, last >> 1
    return last == 0 and hmac.compare_digest(before, old_root) and hmac.compare_digest(after, new_root)


def _split(width: int) -> int:
    """The largest power of two below `width`."""
    return 1 << (width - 1).bit_length() - 1


def _range(low: int, high: int, node: Node) -> bytes:
    """The hash over the leaves from `low` to `high`; `low` is a multiple of the largest power of two within."""
    return _fold(node(level, index) for level, index in _peaks(low, high))


def _peaks(low: int, high: int) -> Iterable[tuple[int, int]]:
    """The complete nodes that cover the leaves from `low` to `high`, left to right, the largest first."""
    while low < high:
        level = (high - low).bit_length() - 1
        yield level, low >> level
        low += 1 << level


def _fold(peaks: Iterable[bytes]) -> bytes:
    row = list(peaks)
    found = row.pop()
    while row:
        found = parent(row.pop(), found)
    return found
