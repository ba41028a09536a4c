"""SoftHSM for tests: Debian's package unpacked into the cache, with tokens and configuration in a folder of the test.

The machine's own configuration is neither read nor changed: SOFTHSM2_CONF names ours before the module is loaded, and
as the module reads it once, one folder serves all tests of a process.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from casemate.drivers import paths
from casemate.drivers.masterkey import pkcs11 as driver
from casemate.errors import Unusable

PACKAGES = ("softhsm2", "libsofthsm2")
PIN = "1234"
_MODULE = "usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"


def tree() -> Path:
    """The unpacked packages; `Unusable` where apt can't fetch them."""
    made = paths.cache() / "softhsm"
    if (made / _MODULE).is_file():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".softhsm-", dir=made.parent))
    try:
        _run(["apt-get", "-q", "download", *PACKAGES], folder)
        for package in sorted(folder.glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(folder)], folder)
            package.unlink()
        folder.chmod(0o755)
        folder.rename(made)
    except OSError as error:
        if not (made / _MODULE).is_file():  # else another process was quicker
            raise Unusable(f"SoftHSM can't be unpacked ({error.strerror})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return made


def module() -> Path:
    """The PKCS#11 module."""
    return tree() / _MODULE


@functools.cache
def home() -> Path:
    """The folder of this process's tokens; the configuration is in force from here on."""
    folder = Path(tempfile.mkdtemp(prefix="casemate-softhsm-"))
    (folder / "tokens").mkdir()
    (folder / "conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n")
    (folder / "pin").write_text(PIN + "\n")
    (folder / "pin").chmod(0o600)
    os.environ["SOFTHSM2_CONF"] = str(folder / "conf")
    return folder


def token(label: str) -> None:
    """Make a token."""
    program = str(tree() / "usr/bin/softhsm2-util")
    words = ["--init-token", "--free", "--label", label, "--so-pin", PIN, "--pin", PIN, "--module", str(module())]
    _run([program, *words], home())
    on_thread(lambda: _library().reinitialize())  # the module lists slots when it starts


def key(label: str, key_id: bytes, **attributes: Any) -> None:
    """Make an AES key in a token, not extractable unless `attributes` (PKCS#11 names) say so."""

    def act() -> None:
        import pkcs11

        template = {pkcs11.Attribute[name.upper()]: value for name, value in attributes.items()}
        with _library().get_token(token_label=label).open(rw=True, user_pin=PIN) as session:
            session.generate_key(
                pkcs11.KeyType.AES, 256, id=key_id, store=True,
                template={pkcs11.Attribute.EXTRACTABLE: False, pkcs11.Attribute.SENSITIVE: True, **template},
            )  # fmt: skip

    on_thread(act)


def on_thread(call: Any) -> Any:
    """Run a call on the thread that all PKCS#11 calls of the process use."""
    thread: ThreadPoolExecutor = driver._thread()
    return thread.submit(call).result(30)


def _library() -> Any:
    import pkcs11

    home()
    return pkcs11.lib(str(module()))


def _run(words: list[str], folder: Path) -> None:
    try:
        said = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unusable(f"{words[0]} does not run here ({type(error).__name__})") from error
    if said.returncode:
        raise Unusable(f"{Path(words[0]).name} failed: {said.stderr.strip()[-200:]}")
