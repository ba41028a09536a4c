"""Types are ready before threads use them: the first two requests of a kind at one moment end no process."""

import subprocess
import sys

from casemate.broker import shapes

RACE = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any
import msgspec
from casemate.broker import shapes
sys.setswitchinterval(1e-6)
pool, kinds = ThreadPoolExecutor(8), []
for _ in range(1500):
    inner = msgspec.defstruct("Inner", [("x", int), ("y", dict[str, Any], {})])
    fields = [("a", Annotated[int, msgspec.Meta(ge=0)]), ("b", inner), ("c", tuple[str, ...], ())]
    kind = msgspec.defstruct("Kind", fields)
    kinds.append(kind)
shapes.ready(tuple(shapes.tee.ROOMS))
def use(kind, gate):
    gate.wait()
    assert msgspec.convert({"a": 1, "b": {"x": 1}}, kind).a == 1
for kind in kinds:
    gate = threading.Barrier(8)
    list(pool.map(lambda _: use(kind, gate), range(8)))
print("still here")
"""


def test_threads_that_meet_in_a_type_that_was_made_ready():
    done = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "still here\n"), done.stderr[-500:]


def test_every_type_of_the_wire_is_ready():
    import casemate.api  # noqa: F401
    from casemate.schema import kbs, manifest
    from casemate.tee.snp import wire

    shapes.ready()
    assert {kbs.Attestation, kbs.AuthRequest, manifest.Manifest, wire._Wire} <= shapes._ready
    assert shapes.ready() == 0
