"""The wheel by itself: built, put into an empty environment with three libraries, and every room verifies there.

The libraries are this environment's, which were installed by hash; they are linked, so that no network is needed.
"""

import importlib.metadata
import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import msgspec
import pytest

from casemate.schema.request import Request
from casemate.tee import ROOMS

ROOT = Path(__file__).parents[2]
# What the rooms may use, and what those need in their turn.
LIBRARIES = ("cryptography", "cffi", "pycparser", "cbor2", "msgspec")
EXTRA = {"nvidia": "casemate[nvidia]"}
ABSENT = ("rfc8785", "yaml", "click", "rich", "joserfc", "starlette", "uvicorn", "sqlalchemy", "lxml", "signxml")

CHILD = """
import json, sys
from datetime import UTC, datetime
import msgspec
import casemate
from casemate.errors import CasemateError
from casemate.schema.endorsements import Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import ROOMS
from casemate.wire.encoding import b64

ASKED = Request(report_data=b"r" * 32)

def sgx():
    from casemate.testing.dcap import FakePlatform
    machine = FakePlatform("sgx")
    quote = machine.quote(machine.enclave(report_data=b"r" * 32))
    return Evidence(tee="sgx", primary={"quote": b64(quote)}), machine.endorsements, machine.now

def sample():
    primary = {"svn": "1", "report_data": b64(b"r" * 32)}
    return Evidence(tee="sample", primary=primary), Endorsements(), datetime.now(UTC)

def nvidia():
    with open(sys.argv[1], "rb") as file:
        kind = tuple[Evidence, tuple[Anchor, ...], dict[str, bytes], datetime]
        evidence, anchors, collateral, now = msgspec.json.decode(file.read(), type=kind)
    return evidence, Endorsements(anchors=anchors, collateral=collateral), now

def fake(module, name, *arguments):
    def make():
        made = getattr(__import__(f"casemate.testing.{module}", fromlist=[name]), name)(*arguments)
        return made.collect(ASKED), made.endorsements, getattr(made, "now", datetime.now(UTC))
    return make

def azure_tdx():
    from casemate.testing.azure import FakeCvm, trust_domain
    made = FakeCvm(trust_domain())
    return made.collect(ASKED), made.endorsements, made.now

CASES = {
    "tpm": fake("tpm", "FakeTpm"), "snp": fake("snp", "FakeChip"), "tdx": fake("tdx", "FakeTd"), "sgx": sgx,
    "nitro": fake("nitro", "FakeEnclave"), "cca": fake("cca", "FakeRealm"), "csv": fake("csv", "FakeHygon"),
    "se": fake("se", "FakeMachine"), "az-snp-vtpm": fake("azure", "FakeCvm"), "az-tdx-vtpm": azure_tdx,
    "nvidia": nvidia, "sample": sample,
}
said = {}
for tee in ROOMS:
    evidence, endorsements, now = CASES[tee]()
    try:
        said[tee] = casemate.verify(evidence, endorsements, ASKED, now).tee
    except CasemateError as error:
        said[tee] = f"{type(error).__name__}: {error}: {error.hint}"
print(json.dumps({"said": said, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The Python of an environment with the wheel and its three libraries alone."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder / "venv")}))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for library in LIBRARIES:
        for file in importlib.metadata.files(library) or ():
            top = site / file.parts[0]
            if ".." not in file.parts and not top.exists():
                top.symlink_to(Path(file.locate()).parents[len(file.parts) - 1] / file.parts[0])
    return folder / "venv" / "bin" / "python"


def run(python, *words):
    done = subprocess.run([python, "-I", *words], capture_output=True, text=True, check=False, cwd=python.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_room_verifies_with_three_libraries_or_names_its_extra(bare, tmp_path):
    from casemate.testing.nvidia import FakeGpu

    gpu = FakeGpu()
    given = gpu.endorsements
    case = tmp_path / "gpu.json"
    asked = Request(report_data=b"r" * 32)
    case.write_bytes(msgspec.json.encode((gpu.collect(asked), given.anchors, given.collateral, gpu.now)))
    answer = json.loads(run(bare, "-c", CHILD, str(case)))
    assert set(answer["said"]) == set(ROOMS)
    for tee, said in answer["said"].items():
        assert EXTRA[tee] in said if tee in EXTRA else said == tee
    assert not set(ABSENT) & set(answer["modules"])


def test_importing_casemate_imports_little(bare):
    code = (  # Debian's Python has a sitecustomize of its own before anything is imported
        "import sys; before = set(sys.modules); import casemate; "
        "print(*(m for m in set(sys.modules) - before if m.partition('.')[0] not in sys.stdlib_module_names))"
    )
    assert [name for name in run(bare, "-c", code).split() if not name.startswith("_")] == ["casemate"]


def test_the_wheel_has_what_is_not_python_too(bare):
    names = {p.name for p in (bare.parents[1] / "lib").rglob("casemate/**/*") if p.suffix not in (".py", ".pyc")}
    assert {"py.typed", "seccomp.json", "script.py.mako"} <= names


def test_the_consoles_pages_are_in_the_wheel(bare):
    source = ROOT / "src/casemate/api/console"
    (there,) = bare.parents[1].glob("lib/python*/site-packages/casemate/api/console")
    for folder in ("templates", "files"):
        assert {path.name for path in (there / folder).iterdir()} == {path.name for path in (source / folder).iterdir()}
