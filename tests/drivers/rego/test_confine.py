"""What a confined process cannot do any more."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, tempfile
from casemate.drivers.rego.confine import confine, watch
import socket, subprocess
folder = tempfile.mkdtemp()
held = confine(64 << 20, files=1 << 20, writable=folder, readable=("/usr/lib",))
print(",".join(held), flush=True)
def tried(act):
    try:
        act()
    except (OSError, MemoryError, RuntimeError) as error:
        return type(error).__name__
    return "done"
print(tried(lambda: socket.socket()))
print(tried(lambda: subprocess.run(["/bin/true"])))
print(tried(lambda: open("/etc/passwd").read()))
print(tried(lambda: bytearray(256 << 20)))
print(tried(lambda: os.kill(os.getppid(), 0)))
print(tried(lambda: open(folder + "/x", "wb").write(b"x")))
"""


def test_no_network_no_program_no_file_no_memory():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.split("\n")
    held = lines[0].split(",")
    assert "limits" in held, done.stderr
    assert lines[4] == "MemoryError"
    if "seccomp" not in held or "landlock" not in held:
        pytest.skip("this kernel has no seccomp or no Landlock")
    assert lines[1:4] == ["PermissionError"] * 3
    assert lines[5] == "PermissionError"
    assert lines[6] == "done"


def test_a_process_that_hoards_is_ended():
    program = (
        "import time\nfrom casemate.drivers.rego.confine import watch\nwatch(128 << 20)\n"
        "held = []\nwhile True:\n    held.append(bytearray(8 << 20)); time.sleep(0.01)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert done.returncode == 77
