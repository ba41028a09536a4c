"""dm-verity trees: the format's corners, and equality with veritysetup."""

from __future__ import annotations

import hashlib
import random
import subprocess
from pathlib import Path
from uuid import UUID

import pytest

from casemate.boot import verity
from casemate.errors import Malformed

SALT = bytes(range(32))
UUID_ = UUID("6d617465-6361-7365-8000-000000000002")


def test_one_block_is_its_own_root_and_two_have_one_level() -> None:
    digest = hashlib.sha256(SALT + b"\1" * 4096).digest()
    assert verity.tree(b"\1" * 4096, SALT) == verity.Tree(root=digest, levels=b"")
    level = (digest * 2).ljust(4096, b"\0")
    assert verity.tree(b"\1" * 8192, SALT) == verity.Tree(root=hashlib.sha256(SALT + level).digest(), levels=level)


def test_levels_are_stored_root_first() -> None:
    data = bytes(4096 * 129)
    made = verity.tree(data, SALT)
    assert len(made.levels) == 3 * 4096
    assert made.root == hashlib.sha256(SALT + made.levels[:4096]).digest()
    assert made.levels[:32] == hashlib.sha256(SALT + made.levels[4096:8192]).digest()


@pytest.mark.parametrize("data", [b"", b"x", bytes(4097)])
def test_data_of_no_whole_blocks_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed, match="whole blocks"):
        verity.tree(data, SALT)


def test_a_long_salt_is_malformed() -> None:
    with pytest.raises(Malformed, match="salt"):
        verity.tree(bytes(4096), bytes(257))
    with pytest.raises(Malformed, match="salt"):
        verity.superblock(UUID_, bytes(257), 1)


@pytest.mark.tools
@pytest.mark.parametrize("blocks", [1, 2, 128, 129, 128 * 128, 128 * 128 + 1])
def test_equal_to_veritysetup(tmp_path: Path, blocks: int) -> None:
    from casemate.drivers import tools

    data = random.Random(blocks).randbytes(4096) * blocks
    (tmp_path / "data").write_bytes(data)
    command = tools.argv(
        "veritysetup",
        "format",
        f"--salt={SALT.hex()}",
        f"--uuid={UUID_}",
        str(tmp_path / "data"),
        str(tmp_path / "tree"),
    )
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    made = verity.tree(data, SALT)
    assert f"Root hash:      \t{made.root.hex()}" in said.stdout
    assert (tmp_path / "tree").read_bytes() == verity.superblock(UUID_, SALT, blocks) + made.levels
