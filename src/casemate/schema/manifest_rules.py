"""What a manifest must also obey beyond its shape: names meet their counterparts, nothing is said twice.

Each rule yields problems with the path in the document and a hint. The guest runs these too, so a rule costs a loop and
no import.
"""

from __future__ import annotations

import binascii
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from casemate.errors import Malformed, Problem
from casemate.schema import sealed
from casemate.schema.manifest import Container, Manifest

MAX_PROBLEMS = 50
RESERVED = ("/proc", "/sys", "/dev", "/run/casemate")
SERIAL = 16  # letters of a volume's name that fit into its disk's serial number
_CAPABILITIES = """
AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER
FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE
NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE
SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM
"""
_SIGNALS = """
HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU
XFSZ VTALRM PROF WINCH IO PWR SYS
"""
CAPABILITIES = frozenset("CAP_" + name for name in _CAPABILITIES.split())
SIGNALS = frozenset("SIG" + name for name in _SIGNALS.split())
# DER of a P-256 SubjectPublicKeyInfo up to its uncompressed point (RFC 5480 section 2)
_P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")

Found = Iterator[Problem]


def judge(
    manifest: Manifest, *, known: Iterable[Problem] = (), lines: Mapping[str, int] | None = None
) -> tuple[Problem, ...]:
    """`known` and every problem that the rules find (one per path), in document order where `lines` tells it."""
    problems = {problem.path: problem for problem in known}
    for rule in RULES:
        for problem in rule(manifest):
            problems.setdefault(problem.path, problem)
    if not problems:
        return ()
    placed = [_placed(problem, lines or {}) for problem in problems.values()]
    return tuple(sorted(placed, key=lambda problem: problem.line)[:MAX_PROBLEMS])


def _placed(problem: Problem, lines: Mapping[str, int]) -> Problem:
    """The problem with the line of its path, or of the nearest part around it."""
    path = problem.path
    while path and path not in lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return Problem(problem.path, problem.message, problem.hint, lines.get(path, 0))


def _each(manifest: Manifest) -> Iterator[tuple[str, Container]]:
    return ((f"containers[{i}]", container) for i, container in enumerate(manifest.containers))


def _twice(pairs: Iterable[tuple[str, object]], what: str, hint: str = "") -> Found:
    """A problem for each (path, value) whose value stood before; blanks are told elsewhere."""
    seen: dict[object, str] = {}
    for path, value in pairs:
        if value in seen:
            yield Problem(path, f"{what} {value!r} stands at {seen[value]} too", hint)
        elif value not in {"", None}:
            seen[value] = path


def _names(manifest: Manifest) -> Found:
    yield from _twice(((f"{p}.name", c.name) for p, c in _each(manifest)), "the container name")
    volumes = [(f"volumes[{i}].name", v.name) for i, v in enumerate(manifest.volumes)]
    yield from _twice(volumes, "the volume name")
    yield from _twice(
        ((path, name[:SERIAL]) for path, name in volumes),
        f"a name that begins (first {SERIAL} letters) with",
        "volumes are told apart by the first 16 letters of their names",
    )
    yield from _twice(((f"brokers[{i}].url", b.url) for i, b in enumerate(manifest.brokers)), "the broker")
    yield from _twice(((f"brokers[{i}].key", b.key) for i, b in enumerate(manifest.brokers)), "the broker key")
    yield from _twice(
        ((f"registries[{i}].prefix", r.prefix) for i, r in enumerate(manifest.registries)), "the registry prefix"
    )


def _quorum(manifest: Manifest) -> Found:
    if manifest.brokers and manifest.quorum > len(manifest.brokers):
        count = len(manifest.brokers)
        yield Problem(
            "quorum", f"{manifest.quorum} brokers must agree, but {count} listed", "list more, or demand fewer"
        )


def _volume_brokers(manifest: Manifest) -> Found:
    """Which broker remembers a volume must not be the host's choice: it could have a full volume formatted anew."""
    if len(manifest.brokers) > 1:
        for i, _ in enumerate(manifest.volumes):
            hint = "list one broker (its replicas share one key and one url), or no volumes"
            yield Problem(f"volumes[{i}]", f"a volume with {len(manifest.brokers)} brokers: one must remember it", hint)


def _signers(manifest: Manifest) -> Found:
    for i, signer in enumerate(manifest.signers):
        if signer.key and not _is_p256(signer.key):
            hint = "cosign's cosign.pub has this form; openssl: ec -pubout"
            yield Problem(f"signers[{i}].key", "not a PEM public key on EC P-256", hint)


def _is_p256(pem: str) -> bool:
    """Whether `pem` is one PUBLIC KEY block with an uncompressed P-256 point (the curve equation is tested on use)."""
    lines = pem.strip().splitlines()
    if len(lines) < 3 or lines[0] != "-----BEGIN PUBLIC KEY-----" or lines[-1] != "-----END PUBLIC KEY-----":
        return False
    try:
        der = binascii.a2b_base64("".join(lines[1:-1]), strict_mode=True)
    except (binascii.Error, ValueError):
        return False
    return len(der) == len(_P256) + 64 and der.startswith(_P256)


def _secrets(manifest: Manifest) -> Found:
    for path, container in _each(manifest):
        for i, secret in enumerate(container.secrets):
            here = f"{path}.secrets[{i}]"
            if (secret.env is None) == (secret.file is None):
                count = "neither" if secret.env is None else "both"
                yield Problem(here, f"{count} env and file given", "a secret goes to exactly one of env and file")
            if secret.file is None and secret.mode != "0400":
                yield Problem(f"{here}.mode", "an environment variable has no mode", "leave mode out, or use file")
            if secret.file is None and secret.signal is not None:
                hint = "use file, which can be updated, or leave signal out"
                yield Problem(f"{here}.signal", "an environment variable can't be updated", hint)


def _env(manifest: Manifest) -> Found:
    for path, container in _each(manifest):
        plain = [(f"{path}.env[{i}].name", e.name) for i, e in enumerate(container.env)]
        secret = [(f"{path}.secrets[{i}].env", s.env) for i, s in enumerate(container.secrets)]
        yield from _twice([*plain, *secret], "the variable")
        texts = [(f"{path}.env[{i}].value", e.value) for i, e in enumerate(container.env)]
        for part, words in (("command", container.command), ("args", container.args)):
            texts += [(f"{path}.{part}[{i}]", word) for i, word in enumerate(words or ())]
        for place, text in texts:
            if "\0" in text:
                yield Problem(place, "a NUL character can't be passed to a program", "remove it, or use a file")


def _paths(manifest: Manifest) -> Found:
    for path, container in _each(manifest):
        put = [(f"{path}.files[{i}].path", f.path) for i, f in enumerate(container.files)]
        put += [(f"{path}.secrets[{i}].file", s.file) for i, s in enumerate(container.secrets) if s.file is not None]
        put += [(f"{path}.mounts[{i}].path", m.path) for i, m in enumerate(container.mounts)]
        put += [(f"{path}.tmpfs[{i}]", t) for i, t in enumerate(container.tmpfs)]
        yield from _twice(put, "the path")
        for place, text in put:
            yield from _reserved(place, text)
        for place, text in [*put, (f"{path}.working_dir", container.working_dir or "/")]:
            parts = text.split("/")[1:]
            if text.startswith("/") and text != "/" and any(part in {"", ".", ".."} for part in parts):
                hint = "write the path without //, . and .., and without a last /"
                yield Problem(place, f"{text!r} is not in its plain form", hint)


def _reserved(place: str, text: str) -> Found:
    if text == "/":
        yield Problem(place, "the root can't be covered", "name a folder below /")
    for folder in RESERVED:
        if text == folder or text.startswith(folder + "/"):
            yield Problem(place, f"{folder} belongs to the guest", "choose another path")


def _mounts(manifest: Manifest) -> Found:
    known = [volume.name for volume in manifest.volumes]
    for path, container in _each(manifest):
        for i, mount in enumerate(container.mounts):
            if mount.volume and mount.volume not in known:
                hint = "volumes of this manifest: " + (", ".join(known) or "none")
                yield Problem(f"{path}.mounts[{i}].volume", f"no volume {mount.volume!r}", hint)


def _ports(manifest: Manifest) -> Found:
    rules = [(f"{path}.ports[{i}]", rule) for path, c in _each(manifest) for i, rule in enumerate(c.ports)]
    hint = "containers of a workload share one network, as in a pod"
    yield from _twice(((p, f"{r.container}/{r.protocol}") for p, r in rules if r.container), "the port", hint)
    for path, rule in rules:
        if rule.tls and rule.protocol != "tcp":
            yield Problem(f"{path}.tls", "TLS is served over tcp", "leave tls out, or set protocol: tcp")


def _registries(manifest: Manifest) -> Found:
    """What is only safe on TLS is refused without it."""
    for i, registry in enumerate(manifest.registries):
        if registry.insecure and registry.credentials:
            hint = "use https (`key` pins a registry without a public certificate), or leave credentials out"
            yield Problem(f"registries[{i}].credentials", "credentials would go over plain HTTP", hint)
        if registry.insecure and registry.key:
            hint = "leave insecure out, or the key"
            yield Problem(f"registries[{i}].key", "plain HTTP has no TLS key to compare", hint)


def _keys(manifest: Manifest) -> Found:
    """Keys of images and volumes and logins of registries serve that purpose alone: nothing else may read them."""
    volumes = [(f"volumes[{i}].key", v.key) for i, v in enumerate(manifest.volumes)]
    yield from _twice(volumes, "the volume key", "each volume has a key of its own")
    closed = {r.credentials: "the login of a registry" for r in manifest.registries if r.credentials}
    closed |= {key: "the key of a volume" for _, key in volumes}
    for path, container in _each(manifest):
        yield from _twice(((f"{path}.image_keys[{i}]", k) for i, k in enumerate(container.image_keys)), "the key")
        closed |= dict.fromkeys(container.image_keys, "the key of an image")
    for path, container in _each(manifest):
        asked = [(f"{path}.secrets[{i}].resource", s.resource) for i, s in enumerate(container.secrets)]
        api = [(f"{path}.api.resources[{i}]", r) for i, r in enumerate(container.api.resources)]
        yield from _twice(api, "the resource")
        named = [(place, uri) for place, said in _sealed_of(path, container) for uri in (said.kid, said.name)]
        for place, resource in [*asked, *api, *named]:
            if resource and resource in closed:
                hint = "containers never get the keys of images and volumes, or the logins of registries"
                yield Problem(place, f"{resource} is {closed[resource]}", hint)


def _sealed(manifest: Manifest) -> Found:
    """A value that looks like a sealed secret is one: nothing unchecked may pass as a plain value."""
    for path, container in _each(manifest):
        for place, text in _plain(path, container):
            try:
                sealed.parse(text)
            except Malformed as error:
                yield Problem(
                    place, str(error), error.hint or "see docs/how-to/secrets.md, or begin the value otherwise"
                )


def _sealed_of(path: str, container: Container) -> Iterator[tuple[str, sealed.Sealed]]:
    for place, text in _plain(path, container):
        with contextlib.suppress(Malformed):  # told by `_sealed`
            yield place, sealed.parse(text)


def _plain(path: str, container: Container) -> Iterator[tuple[str, str]]:
    """(place, value) of each variable and file that begins like a sealed secret."""
    texts = [(f"{path}.env[{i}].value", one.value) for i, one in enumerate(container.env)]
    texts += [(f"{path}.files[{i}].content", one.content) for i, one in enumerate(container.files)]
    return ((place, text.strip()) for place, text in texts if text.startswith(sealed.PREFIX))


def _words(manifest: Manifest) -> Found:
    """Signals and capabilities that Linux knows; user ids that fit."""
    signals: list[tuple[str, str | None]] = [(f"host.signals[{i}]", s) for i, s in enumerate(manifest.host.signals)]
    for path, container in _each(manifest):
        signals.append((f"{path}.stop_signal", container.stop_signal))
        signals += [(f"{path}.secrets[{i}].signal", s.signal) for i, s in enumerate(container.secrets)]
        for i, name in enumerate(container.capabilities):
            if name not in CAPABILITIES:
                yield Problem(f"{path}.capabilities[{i}]", f"no capability {name!r}", "see capabilities(7)")
        for number in (container.user or "0").split(":"):
            if number.isdigit() and int(number) >= 2**32 - 1:
                yield Problem(f"{path}.user", f"{number} is not a user or group id", "ids end at 4294967294")
    for place, signal in signals:
        if signal and signal not in SIGNALS:
            yield Problem(place, f"no signal {signal!r}", "see signal(7)")


def _brokers(manifest: Manifest) -> Found:
    for i, broker in enumerate(manifest.brokers):
        host, _, port = broker.url.removeprefix("https://").rpartition(":")
        if host and not host.endswith("]") and port.isdigit() and not 1 <= int(port[:6]) <= 65535:
            yield Problem(f"brokers[{i}].url", f"no port {port[:12]}", "ports are 1 to 65535")


RULES: tuple[Callable[[Manifest], Found], ...] = (
    _names,
    _quorum,
    _volume_brokers,
    _brokers,
    _registries,
    _signers,
    _secrets,
    _env,
    _paths,
    _mounts,
    _ports,
    _keys,
    _sealed,
    _words,
)
