"""Programs that fail: by a word, by a code alone, by a signal; each is a sentence."""

import subprocess

import pytest

from casemate.drivers import lastwords, tools
from casemate.errors import Unavailable
from casemate.host.guestimage import disk, initrd
from casemate.host.guestimage.recipe import load_recipe


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo no room >&2; exit 1", "no room"),
        ("echo on the other stream; exit 1", "on the other stream"),
        ("exit 3", "it ended with code 3 and said nothing"),
        ("kill -9 $$", "SIGKILL ended it; the machine may be out of memory"),
        ("echo half >&2; kill -TERM $$", "SIGTERM ended it: half"),
        ("printf '%0500d' 7; exit 1", "0" * 299 + "7"),
    ],
)
def test_why(script, said):
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert lastwords.of(done) == said
    assert lastwords.of(subprocess.run(["sh", "-c", script], capture_output=True, check=False)) == said


def test_a_tool_of_the_build_that_is_killed_is_told(monkeypatch, tmp_path):
    """A machine that runs out of memory kills without a word."""
    monkeypatch.setattr(tools, "argv", lambda *_: ["sh", "-c", "kill -9 $$"])
    with pytest.raises(Unavailable, match="zstd failed: SIGKILL ended it; the machine may be out of memory"):
        initrd.compress(b"data" * 100_000)
    with pytest.raises(Unavailable, match=r"mkfs\.erofs failed: SIGKILL"):
        disk.make(load_recipe(), tmp_path, tmp_path / "disk.img")
