"""Lock files, mirrors from apt's configuration, fetching from a mirror that lies or has lost a version."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.drivers import debs
from casemate.errors import Malformed, Unavailable, Unusable

DATA = b"not really a package"
GOOD = debs.Package(
    "zlib1g", "1:1.3.dfsg+really1.3.1-1+deb13u1", "amd64", "debian-security",
    "pool/updates/main/z/zlib/zlib1g_1.3.dfsg+really1.3.1-1+deb13u1_amd64.deb",
    len(DATA), hashlib.sha256(DATA).hexdigest(),
)  # fmt: skip
OTHER = debs.Package("ovmf", "2025.02-8", "all", "debian", "pool/main/e/edk2/ovmf_2025.02-8_all.deb", 5, "00" * 32)


def test_a_lock_reads_back_as_it_was_written() -> None:
    text = debs.format_lock([GOOD, OTHER], "Two packages.\nNo host.")
    assert text.startswith("# Two packages.\n# No host.\n")
    assert debs.parse_lock(text) == (GOOD, OTHER)


LINE = debs.format_lock([GOOD], "").splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no package"),
        ("# only words\n", "no package"),
        (f"{LINE} extra", "8 fields"),
        (LINE.replace(" ", "  ", 1), "8 fields"),
        (LINE.replace("zlib1g", "../x", 1), "name"),
        (LINE.replace("amd64 ", "arm64 ", 1), "architecture"),
        (LINE.replace("debian-security", "elsewhere"), "archive"),
        (LINE.replace("pool/updates", "/etc"), "pool file"),
        (LINE.replace("pool/updates/main/z", "pool/../../z"), "pool file"),
        (LINE.replace("pool/", "http://registry.example/pool/"), "pool file"),
        (LINE.replace(f" {len(DATA)} ", " 0 "), "size"),
        (LINE.replace(f" {len(DATA)} ", " 9999999999 "), "size"),
        (LINE.replace(GOOD.sha256, GOOD.sha256.upper()), "SHA-256"),
        (LINE[:-1], "SHA-256"),
        (f"{LINE}\n{LINE}", "line 2: zlib1g is locked twice"),
    ],
)
def test_a_broken_lock_is_malformed_and_the_line_is_named(text: str, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        debs.parse_lock(text)


@given(st.text(max_size=300) | st.lists(st.text(max_size=20), max_size=9).map(" ".join))
def test_any_text_is_a_lock_or_malformed(text: str) -> None:
    with contextlib.suppress(Malformed):
        assert debs.parse_lock(text)


DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/one.gpg

Types: deb
URIs: https://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""
DISABLED = """\
Enabled: no
Types: deb
URIs: http://wrong.example/debian
Suites: trixie
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: trixie
Components: main

Types: deb
URIs:
 http://right.example/debian
 http://second.example/debian
Suites: trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 xsFN
 -----END PGP PUBLIC KEY BLOCK-----
"""
ONE_LINE = """\
# deb http://old.example/debian bookworm main
deb-src http://source.example/debian trixie main
deb [arch=amd64 signed-by=/etc/apt/keyrings/d.gpg] http://line.example/debian trixie main contrib
deb http://line.example/security trixie-security main
deb https://vendor.example/apt stable-of-vendor main
"""


@pytest.mark.parametrize(
    ("name", "text", "debian", "security", "keyring"),
    [
        (
            "sources.list.d/debian.sources", DEB822,
            "http://mirror.example/debian", "https://mirror.example/debian-security", "/usr/share/keyrings/one.gpg",
        ),
        (
            "sources.list.d/a.sources", DISABLED,
            "http://right.example/debian", "http://right.example/debian-security",
            "/usr/share/keyrings/debian-archive-keyring.gpg",
        ),
        (
            "sources.list", ONE_LINE,
            "http://line.example/debian", "http://line.example/security", "/etc/apt/keyrings/d.gpg",
        ),
        (
            "sources.list.d/x.list", ONE_LINE,
            "http://line.example/debian", "http://line.example/security", "/etc/apt/keyrings/d.gpg",
        ),
    ],
)  # fmt: skip
def test_mirrors_come_from_apts_own_sources(
    tmp_path: Path, name: str, text: str, debian: str, security: str, keyring: str
) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    assert debs.mirrors(tmp_path) == debs.Mirrors(debian, security, keyring)


def test_without_a_debian_mirror_the_input_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb https://vendor.example/apt nodistro main\n")
    with pytest.raises(Unusable, match="no Debian mirror"):
        debs.mirrors(tmp_path)


class Mirror(ThreadingHTTPServer):
    files: dict[str, bytes]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Mirror)
        data = self.server.files.get(self.path.replace("%2b", "+"))
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setenv("CASEMATE_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = Mirror(("127.0.0.1", 0), Handler)
    server.files = {}
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def _sources(mirror: Mirror) -> debs.Mirrors:
    base = f"http://127.0.0.1:{mirror.server_address[1]}"
    return debs.Mirrors(f"{base}/debian", f"{base}/security", "")


def test_a_package_is_fetched_once_and_then_cached(mirror: Mirror) -> None:
    mirror.files[f"/security/{GOOD.file}"] = DATA
    said: list[str] = []
    found = debs.fetch([GOOD], sources=_sources(mirror), progress=said.append)
    assert found[GOOD.name].read_bytes() == DATA
    assert found[GOOD.name].name == f"{GOOD.sha256}.deb"
    mirror.files.clear()
    assert debs.fetch([GOOD], sources=_sources(mirror), progress=said.append) == found
    assert said == ["fetching 1 packages, 0.0 MB"]


def test_a_version_that_is_gone_is_named(mirror: Mirror) -> None:
    mirror.files[f"/security/{GOOD.file}"] = DATA
    with pytest.raises(debs.Gone, match=r"ovmf 2025\.02-8") as caught:
        debs.fetch([GOOD, OTHER], sources=_sources(mirror))
    assert caught.value.packages == (OTHER,)


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"!", DATA[::-1]])
def test_other_bytes_than_the_locked_ones_are_not_kept(mirror: Mirror, tmp_path: Path, data: bytes) -> None:
    mirror.files[f"/security/{GOOD.file}"] = data
    with pytest.raises(Unavailable, match="cannot fetch zlib1g") as caught:
        debs.fetch([GOOD], sources=_sources(mirror))
    assert not isinstance(caught.value, debs.Gone)
    assert not any((tmp_path / "cache/debs").iterdir())


def test_a_mirror_that_does_not_answer_is_unavailable(mirror: Mirror) -> None:
    sources = _sources(mirror)
    mirror.server_close()
    with pytest.raises(Unavailable, match="cannot fetch"):
        debs.fetch([GOOD], sources=sources)
