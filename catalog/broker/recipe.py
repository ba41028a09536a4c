"""The broker's image: Debian's Python, and the wheels of requirements/run.txt, unpacked and nothing run of them.

    python catalog/broker/recipe.py OUT      writes an OCI layout, and prints its digest
    python catalog/broker/recipe.py --lock   resolves the Debian packages anew

Packages are locked by version and SHA-256, wheels by hash. Python's caches hold no times, so the same input gives the
same digest.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from casemate.drivers import debs, tools
from casemate.drivers.aptroot import AptRoot
from casemate.errors import Unavailable

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LOCK = HERE / "packages.lock"
SUITE, PYTHON = "trixie", "3.13"
WANTED = ("python3.13-minimal", "libpython3.13-stdlib", "openssl", "ca-certificates")
USER = "901:901"
# Of what apt adds, not in the image: what only a shell, a terminal or a maintainer's script needs.
LEFT_OUT = (
    "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/bash-completion",
    "usr/share/perl5", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/x86_64-linux-gnu/perl-base",
    "usr/lib/python3.13/pydoc_data", "usr/lib/python3.13/idlelib", "usr/lib/python3.13/ensurepip",
    "usr/share/terminfo", "var/lib/dpkg", "var/cache",
    "usr/sbin", "usr/share/keyrings", "usr/share/debconf",
)  # fmt: skip
ENTRYPOINT = ("/usr/bin/python3.13", "-I", "/opt/broker/start.py")
SITE = "opt/broker/site"


def build(target: Path, say: Callable[[str], None]) -> None:
    """The root filesystem in the empty folder `target`."""
    packages = list(debs.parse_lock(LOCK.read_text()))
    try:
        files = debs.fetch(packages, progress=say)
    except debs.Gone as gone:
        say(f"{gone}; taking the newest versions instead")
        packages = resolve()
        files = debs.fetch(packages, progress=say)
    # base-files first: its links make /lib and /bin parts of /usr.
    tools.unpack((files[p.name] for p in sorted(packages, key=lambda p: (p.name != "base-files", p.name))), target)
    wheels(target / SITE, say)
    shutil.copyfile(HERE / "start.py", target / "opt/broker/start.py")
    for name in LEFT_OUT:
        shutil.rmtree(target / name, ignore_errors=True)
    for program in (target / "usr/bin").iterdir():  # no shell, no tools: what runs here is Python
        if program.name != f"python{PYTHON}":
            program.unlink()
    roots = sorted((target / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    (target / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
    (target / "etc/ssl/certs/ca-certificates.crt").write_text("".join(root.read_text() for root in roots))
    for name in ("var/lib/casemate", "run/secrets", "run/casemate", "tmp", "proc", "sys", "dev"):
        (target / name).mkdir(parents=True, exist_ok=True)
    uid, gid = USER.split(":")
    (target / "etc/passwd").write_text(
        f"root:x:0:0::/:/usr/sbin/nologin\ncasemate:x:{uid}:{gid}::/var/lib/casemate:/usr/sbin/nologin\n"
    )
    (target / "etc/group").write_text(f"root:x:0:\ncasemate:x:{gid}:\n")
    compiled(target)


def wheels(site: Path, say: Callable[[str], None]) -> None:
    """The locked wheels for the image's Python, and this project's own modules."""
    say("wheels of requirements/run.txt")
    done = subprocess.run(
        [resolver(), "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:",
         "--python-version", PYTHON, "--python-platform", "x86_64-manylinux_2_40", "--link-mode", "copy",
         "--target", str(site), "--requirements", str(ROOT / "requirements/run.txt")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise Unavailable(f"the wheels cannot be had: {done.stderr.strip()[-400:]}")
    shutil.rmtree(site / "bin", ignore_errors=True)
    (site / ".lock").unlink(missing_ok=True)
    shutil.copytree(ROOT / "src/casemate", site / "casemate", ignore=shutil.ignore_patterns("testing", "__pycache__"))


def resolver() -> str:
    """uv, which installs for another Python than its own; at its locked version where it is not at hand."""
    found = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    if not Path(found).exists():
        pip = [sys.executable, "-m", "pip", "--quiet", "install", "--require-hashes"]
        lock = str(ROOT / "requirements/bootstrap.txt")
        done = subprocess.run([*pip, "--requirement", lock], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"uv cannot be had: {done.stderr.strip()[-400:]}")
    return found


def compiled(target: Path) -> None:
    """Every module, compiled by the image's own Python: inside, the root is read-only and compiling takes a minute.

    The caches say the hash of their source (PEP 552), so they hold no time.
    """
    libraries = target / "usr/lib/x86_64-linux-gnu"
    python = [libraries / "ld-linux-x86-64.so.2", "--library-path", libraries, target / f"usr/bin/python{PYTHON}"]
    folders = [target / f"usr/lib/python{PYTHON}", target / SITE]
    options = ["-q", "-f", "-s", target, "-p", "/", "--invalidation-mode", "unchecked-hash"]
    done = subprocess.run(
        [*map(str, python), "-m", "compileall", *map(str, [*options, *folders])],
        capture_output=True, text=True, check=False, env={"PYTHONHOME": str(target / "usr"), "PYTHONHASHSEED": "0"},
    )  # fmt: skip
    if done.returncode:
        raise Unavailable(f"the image's Python cannot compile: {(done.stderr or done.stdout).strip()[-400:]}")


def resolve() -> list[debs.Package]:
    """The newest versions of what Python needs, without the packages' tools for maintainers."""
    unneeded = {"debconf", "dpkg", "tar", "perl-base", "mawk", "gcc-14-base", "libgcc-s1", "media-types"}
    with tempfile.TemporaryDirectory(prefix="casemate-apt-") as folder:
        apt = AptRoot(Path(folder), SUITE)
        apt.update()
        names = sorted(
            (set(apt.resolve(WANTED)) | {"base-files", "libgcc-s1", "libstdc++6"}) - (unneeded - {"libgcc-s1"})
        )
        return apt.describe(names)


def layout(out: Path, say: Callable[[str], None]) -> str:
    """An OCI layout of the image in the new folder `out`; its digest."""
    from casemate.image import build as make
    from casemate.image import manifest as oci
    from casemate.image.layout import Layout

    with tempfile.TemporaryDirectory(prefix="casemate-image-", dir=_ram()) as folder:
        root = Path(folder) / "root"
        root.mkdir()
        build(root, say)
        made = Layout.create(out)
        layer = make.add_layer(made, make.folder_tar(root, owner=(0, 0)))
        process = oci.Process(
            Entrypoint=list(ENTRYPOINT), User=USER, ExposedPorts={"8443/tcp": {}}, StopSignal="SIGTERM"
        )
        return make.add_image(made, [layer], process).digest


def _ram() -> Path | None:
    ram = Path("/dev/shm")  # noqa: S108 - `tempfile` makes a private folder in it; file creation on some root disks is slow
    return ram if ram.is_dir() else None


def main(words: list[str]) -> int:
    """The command."""
    if words == ["--lock"]:
        heading = "Packages of the broker's image, locked.\nWritten by `python catalog/broker/recipe.py --lock`."
        LOCK.write_text(debs.format_lock(resolve(), heading))
        return 0
    if len(words) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    print(layout(Path(words[0]), lambda text: print(text, file=sys.stderr)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
