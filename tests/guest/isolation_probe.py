"""Process 1 of a guest that looks at itself from inside its containers: crun, bundles, limits; one JSON line out."""

import ctypes
import json
import os
import shutil
import sys
import threading
import time
import traceback
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

sys.path[:0] = ["/usr/lib/casemate", "/usr/lib/python3/dist-packages"]

from casemate.drivers.crun import Crun  # noqa: E402 - the path comes first
from casemate.errors import CasemateError  # noqa: E402
from casemate.guest import checks, firewall, main  # noqa: E402
from casemate.guest.attest import Resource, find_attester  # noqa: E402
from casemate.guest.bundles import Bundles  # noqa: E402
from casemate.guest.secrets import Keeper  # noqa: E402
from casemate.guest.supervise import Supervisor, Task  # noqa: E402
from casemate.image.manifest import Process  # noqa: E402
from casemate.schema import manifest as manifests  # noqa: E402
from casemate.tee import COLLECTED, ROOMS, SIGNS  # noqa: E402

RUN = Path("/run/casemate")
IMAGE = "registry.example/box@sha256:" + "0" * 64

LOOK = r"""
say() { printf '%s=' "$1"; shift; "$@" 2>&1 | tr '\n' '|'; echo; }
try() { name=$1; shift; if "$@" >/dev/null 2>&1; then echo "$name=done"; else echo "$name=denied"; fi; }
say id id
say devices ls /dev
say caps grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status
say processes ls /proc
say own cat /run/secrets/own /etc/app/key
say mode stat -c '%a %u %g' /run/secrets/own
say links readlink /etc/app/key
say run ls /run /run/casemate
say security ls /sys/kernel/security /sys/kernel/config
say tpm ls /sys/class/tpm /sys/class/virtio-ports
say machine sh -c 'find /sys -iname "tpm*" -o -name "pcr-*" -o -name "vport*" -o -name serial -o -name "MSFT*"'
say six ls /proc/sys/net/ipv6
say hosts cat /etc/hosts
say hostname hostname
try write_root touch /new
try write_tmp touch /tmp/new
try write_secret sh -c 'echo x > /run/secrets/own'
try write_sys sh -c 'echo 1 > /sys/fs/cgroup/pids.max'
try write_proc sh -c 'echo 1 > /proc/sys/kernel/sysrq'
try mknod mknod /tmp/tpm c 10 224
try mount mount -t tmpfs none /tmp
try unshare unshare -U true
try chroot chroot / true
try kmem head -c 1 /dev/kmem
try kcore sh -c 'head -c 4 /proc/kcore | grep -q ELF'
try disk head -c 1 /dev/vda
try dmesg dmesg
try setuid su -c true
try tpm_device head -c 1 /dev/tpm0
try loopback wget -q -T 2 -O /dev/null http://127.0.0.1:1/
try other ls /run/casemate/containers
"""


class Source:
    def versioned(self, uri):
        return Resource(b"value of " + uri.encode(), "1")

    def changed(self, uri, known):
        return None


def root(folder):
    """A root folder of busybox alone."""
    for name in ("bin", "etc/app", "run/secrets", "tmp", "proc", "sys", "dev"):
        (folder / name).mkdir(parents=True)
    shutil.copy("/usr/bin/busybox", folder / "bin/busybox")
    (folder / "bin/busybox").chmod(0o4755)
    words = os.popen("/usr/bin/busybox --list").read().split()
    for name in words:
        if name != "busybox":
            (folder / "bin" / name).symlink_to("busybox")
    (folder / "etc/app/key").write_text("of the image")
    (folder / "etc/app/other").write_text("of the image")
    (folder / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nweb:x:101:101::/:/bin/sh\n")
    return folder


def container(name, command, **more):
    document = {"name": name, "image": IMAGE, "command": ["/bin/sh", "-c", command], **more}
    import msgspec

    return msgspec.convert(document, manifests.Container)


def run(supervisor, bundles, image, spec, seconds=60):
    """(exit code, stdout) of one container."""
    keeper = Keeper(Source(), lambda *_: None, 60)
    began = time.monotonic()
    bundle = bundles.prepare(spec, image, keeper, Source(), lambda *_: False)
    supervisor.start(Task(spec, bundle))
    started = time.monotonic() - began
    watched = supervisor._watched[spec.name]
    ended = watched.done.wait(seconds)
    time.sleep(0.2)
    text = {stream: data.decode() for stream, data in supervisor.output(spec.name).tail(10_000)}
    code = watched.code if ended else "still running"
    return {"code": code, "out": text.get("stdout", ""), "err": text.get("stderr", ""), "start": round(started, 3)}


def look():
    main.prepare()
    image = SimpleNamespace(config=SimpleNamespace(process=Process()), rootfs=root(RUN / "images/x/rootfs"))
    bundles = Bundles(RUN, overlay=True, volumes={})
    supervisor = Supervisor(Crun(RUN / "crun"), lambda *_: None)
    secrets = [{"resource": "kbs:///a/b/own", "file": "/run/secrets/own"}]
    secrets.append({"resource": "kbs:///a/b/key", "file": "/etc/app/key"})
    facts = {}
    facts["user"] = run(
        supervisor, bundles, image, container("user", LOOK, user="101:101", tmpfs=["/tmp"], secrets=secrets)
    )
    facts["root"] = run(supervisor, bundles, image, container("root", LOOK, tmpfs=["/tmp"], secrets=secrets))
    facts["open"] = run(
        supervisor,
        bundles,
        image,
        container(
            "open", "touch /new && chroot / true && echo ok", read_only_root=False, capabilities=["CAP_SYS_CHROOT"]
        ),
    )
    facts["image untouched"] = sorted(p.name for p in (RUN / "images/x/rootfs").iterdir())
    hungry = "dd if=/dev/zero of=/tmp/big bs=1M count=64; echo survived"
    limits = {"memory_mib": 16, "pids": 20}
    facts["memory"] = run(supervisor, bundles, image, container("memory", hungry, tmpfs=["/tmp"], limits=limits))
    forks = "i=0; while [ $i -lt 60 ]; do sleep 2 & i=$((i+1)); done; echo forked"
    facts["pids"] = run(supervisor, bundles, image, container("pids", forks, limits=limits))
    facts["missing"] = missing(supervisor, bundles, image)

    waiting = container("waiting", "trap 'echo term; exit 5' TERM; while :; do sleep 0.1; done")
    keeper = Keeper(Source(), lambda *_: None, 60)
    supervisor.start(Task(waiting, bundles.prepare(waiting, image, keeper, Source(), lambda *_: False)))
    time.sleep(1)
    done = supervisor.execute("waiting", ("/bin/sh", "-c", "id -u; exit 3"), timeout=20, limit=100)
    facts["exec"] = {"code": done.code, "out": done.stdout.decode()}
    status = supervisor.execute(
        "waiting", ("/bin/grep", "-E", "^(Cap|NoNew|Seccomp:)", "/proc/self/status"), timeout=20, limit=1000
    )
    facts["exec status"] = status.stdout.decode()
    late = supervisor.execute("waiting", ("/bin/sh", "-c", "sleep 4242"), timeout=3, limit=100)
    time.sleep(0.5)
    left = supervisor.execute(
        "waiting", ("/bin/sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"), timeout=20, limit=10_000
    )
    facts["late"] = {"code": late.code, "left": "sleep 4242" in left.stdout.decode().replace("-c sleep 4242", "")}
    facts["cmdlines"] = left.stdout.decode()
    supervisor.stop(10)
    facts["stopped"] = supervisor.codes()["waiting"]

    parts = SimpleNamespace(containers=(container("x", "true", ports=[{"container": 8443}]),))
    firewall.apply(firewall.ruleset(parts))
    facts["rules"] = os.popen("nft list ruleset").read()
    facts["attester"] = find_attester().tee
    facts["collectors"] = [import_module(f"{ROOMS[name]}.collect").present() for name in COLLECTED if name not in SIGNS]
    facts["agent_kib"] = checks.resident_kib()
    facts["memory_mib"] = checks.memory()
    facts["threads"] = threading.active_count()
    print("casemate-probe " + json.dumps(facts), flush=True)


def missing(supervisor, bundles, image):
    """What is said of a program that does not exist."""
    spec = container("missing", "")
    import msgspec

    spec = msgspec.structs.replace(spec, command=("/no/such",))
    try:
        return run(supervisor, bundles, image, spec)
    except CasemateError as error:
        return str(error)


try:
    look()
except BaseException:
    print("casemate: " + traceback.format_exc().replace("\n", " | "), flush=True)
os.sync()
ctypes.CDLL(None).reboot(0x4321FEDC)  # LINUX_REBOOT_CMD_POWER_OFF
