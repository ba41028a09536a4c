"""A compose file as manifest containers: every key has a counterpart, or is an error that names its line.

Spec: the Compose Specification (compose-spec, `services`, `volumes`, `secrets`). Nothing is dropped in silence, because
a key that quietly does nothing inside the VM would be a promise broken. Published host ports and secret contents are
not part of a manifest: they come back as notes for the launch.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from casemate.errors import Malformed, Problem

_SAME_NETWORK = "containers of a workload share one network; reach each other at 127.0.0.1"
_WHY_NOT = {
    "build": "build the image first and name it here",
    "container_name": "the service's name is the container's name",
    "depends_on": "all containers start together; let the program wait for its peers",
    "devices": "the guest gives no devices to containers",
    "env_file": "write the variables into environment; secrets go through secrets",
    "expose": _SAME_NETWORK,
    "extends": "write the service out",
    "healthcheck": "the guest runs no health checks; watch the service from outside",
    "labels": "a manifest has no labels",
    "links": _SAME_NETWORK,
    "logging": "logs leave the guest only by the manifest's host.logs",
    "network_mode": _SAME_NETWORK,
    "networks": _SAME_NETWORK,
    "privileged": "list the capabilities that the program needs under cap_add",
    "configs": "put the content into the manifest's files",
    "security_opt": "the default seccomp profile and no_new_privs always hold",
}
_PORT = re.compile(r"(?:(?:[0-9.]+:|\[[0-9a-f:]+\]:)?(?P<host>[0-9]*):)?(?P<port>[0-9]{1,5})(?:/(?P<proto>tcp|udp))?")
_SIZE = re.compile(r"([0-9]{1,12})([bkmg]?)b?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class Converted(NamedTuple):
    """Manifest parts as plain data, and notes: what the launch or the broker must be told besides."""

    name: str
    containers: list[dict[str, Any]]
    volumes: list[str]
    notes: list[str]


def convert(document: Any, lines: Mapping[str, int], pin: Callable[[str], str]) -> Converted:
    """The containers of a compose document; `pin` turns an image name into one with a digest.

    `Malformed` lists every key without a counterpart, with its line.
    """
    return _Conversion(lines, pin).run(document)


class _Conversion:
    def __init__(self, lines: Mapping[str, int], pin: Callable[[str], str]) -> None:
        self.lines = lines
        self.pin = pin
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.name = "app"

    def wrong(self, path: str, message: str, hint: str = "") -> None:
        place = path
        while place and place not in self.lines:
            place = place[: max(place.rfind("."), place.rfind("["), 0)]
        self.problems.append(Problem(path, message, hint, self.lines.get(place, 0)))

    def run(self, document: Any) -> Converted:
        """The whole document; raises with every problem at the end."""
        document = self.literal(document, "")
        if not isinstance(document, dict) or not isinstance(document.get("services"), dict):
            raise Malformed("compose file: no services", hint="a compose file has a mapping `services`")
        for key in document:
            if key not in {"name", "version", "services", "volumes", "secrets"}:
                self.wrong(key, "no counterpart in a manifest", _WHY_NOT.get(key, "leave it out"))
        self.name = str(document.get("name") or next(iter(document["services"]), "app"))
        volumes = self.volumes(document.get("volumes") or {})
        self.secrets(document.get("secrets") or {})
        containers = [self.service(str(name), body) for name, body in document["services"].items()]
        if self.problems:
            self.problems.sort(key=lambda problem: problem.line)
            listed = "".join(f"\n  {problem}" for problem in self.problems)
            raise Malformed(f"compose file: {len(self.problems)} problem(s){listed}", problems=self.problems)
        return Converted(self.name, containers, volumes, self.notes)

    def literal(self, value: Any, path: str) -> Any:
        """`value` with `$$` read as `$`; variables of the shell are problems (nobody else has them)."""
        if isinstance(value, dict):
            return {key: self.literal(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.literal(item, f"{path}[{i}]") for i, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        if re.search(r"\$[A-Za-z_{]", value.replace("$$", "")):
            self.wrong(path, "variables of the shell are not read", "write the value out; a plain $ is written $$")
        return value.replace("$$", "$")

    def volumes(self, listed: Any) -> list[str]:
        """Names of the declared volumes; options have no counterpart."""
        for name, body in self.mapping(listed, "volumes").items():
            for option in self.mapping(body or {}, f"volumes.{name}"):
                self.wrong(
                    f"volumes.{name}.{option}", "no counterpart in a manifest", "volumes are always encrypted disks"
                )
        return list(self.mapping(listed, "volumes"))

    def secrets(self, listed: Any) -> None:
        """Declared secrets become broker resources; where their content comes from is a note."""
        for name, body in self.mapping(listed, "secrets").items():
            source = body if isinstance(body, dict) else {}
            for key in source:
                if key not in {"file", "environment", "external"}:
                    self.wrong(f"secrets.{name}.{key}", "no counterpart in a manifest")
            origin = f"< {source['file']}" if source.get("file") else "< its content"
            self.notes.append(f"store a secret: casemate secret set {self.resource(name)} --app ID {origin}")

    def resource(self, secret: str) -> str:
        return f"kbs:///{self.name}/secret/{secret}"

    def mapping(self, value: Any, path: str) -> dict[str, Any]:
        """`value` as a mapping, or a problem and an empty one."""
        if isinstance(value, dict):
            return value
        self.wrong(path, "expected a mapping")
        return {}

    def entries(self, value: Any, path: str) -> list[Any]:
        """`value` as a list (nothing is an empty one), or a problem and an empty one."""
        if value is None or isinstance(value, list):
            return value or []
        self.wrong(path, "expected a list")
        return []

    def service(self, name: str, body: Any) -> dict[str, Any]:
        """One service as a container."""
        path = f"services.{name}"
        made: dict[str, Any] = {"name": name, "read_only_root": False}  # compose's default; ours is stricter
        if not isinstance(body, dict) or not isinstance(body.get("image"), str):
            self.wrong(path, "no image", "name an image; building belongs before this step")
            return made
        for key, value in body.items():
            rule = getattr(self, f"key_{key}", None) if re.fullmatch(r"[a-z_]+", key) else None
            if rule is None:
                self.wrong(f"{path}.{key}", "no counterpart in a manifest", _WHY_NOT.get(key, "leave it out"))
                continue
            try:
                rule(value, f"{path}.{key}", made)
            except (AttributeError, KeyError, TypeError, ValueError):
                self.wrong(f"{path}.{key}", "not in a form that the Compose Specification gives it")
        return made

    # One method per key that has a counterpart: (value, path, container so far).

    def key_image(self, value: Any, path: str, made: dict[str, Any]) -> None:
        try:
            made["image"] = self.pin(value)
        except Malformed as error:
            self.wrong(path, str(error), error.hint)

    def key_command(self, value: Any, path: str, made: dict[str, Any]) -> None:
        made["args"] = self.words(value, path)

    def key_entrypoint(self, value: Any, path: str, made: dict[str, Any]) -> None:
        made["command"] = self.words(value, path)

    def key_environment(self, value: Any, path: str, made: dict[str, Any]) -> None:
        listed = [] if isinstance(value, dict) else self.entries(value, path)
        pairs = value.items() if isinstance(value, dict) else [str(item).partition("=")[::2] for item in listed]
        made["env"] = []
        for index, (key, text) in enumerate(pairs):
            place = f"{path}.{key}" if isinstance(value, dict) else f"{path}[{index}]"
            given = text is not None if isinstance(value, dict) else "=" in str(listed[index])
            if not given:
                self.wrong(place, f"{key} takes its value from the shell", "write the value here, or make it a secret")
            else:
                made["env"].append({"name": str(key), "value": _text(text)})

    def key_ports(self, value: Any, path: str, made: dict[str, Any]) -> None:
        made["ports"] = []
        for index, item in enumerate(self.entries(value, path)):
            place = f"{path}[{index}]"
            if isinstance(item, dict):
                for key in item:
                    if key not in {"target", "published", "protocol", "host_ip", "mode", "name"}:
                        self.wrong(f"{place}.{key}", "no counterpart in a manifest")
                text = f"{item.get('published', '')}:{item.get('target', '')}/{item.get('protocol', 'tcp')}"
            else:
                text = str(item)
            found = _PORT.fullmatch(text)
            if not found:
                self.wrong(place, f"{text!r} is not one port", "list single ports as host:container")
                continue
            made["ports"].append({"container": int(found["port"]), "protocol": found["proto"] or "tcp"})
            if found["host"]:
                self.notes.append(f"publish at launch: casemate run --publish {found['host']}:{found['port']}")

    def key_volumes(self, value: Any, path: str, made: dict[str, Any]) -> None:
        for index, item in enumerate(self.entries(value, path)):
            place = f"{path}[{index}]"
            source, target, options = self.mount(item)
            if source is None or target is None or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", source):
                hint = "the host's folders stay outside; use a named volume, or the manifest's files"
                self.wrong(place, "only named volumes can be mounted", hint)
            elif options - {"ro", "rw"}:
                self.wrong(place, f"no counterpart for {', '.join(sorted(options - {'ro', 'rw'}))}")
            else:
                mount = {"volume": source, "path": target}
                made.setdefault("mounts", []).append(mount | ({"read_only": True} if "ro" in options else {}))

    def mount(self, item: Any) -> tuple[str | None, str | None, set[str]]:
        """(source, target, options) of a volume entry in short or long form."""
        if isinstance(item, dict):
            known = {"type", "source", "target", "read_only"}
            options = ({"ro"} if item.get("read_only") else set()) | {str(key) for key in item if key not in known}
            return (item.get("source") if item.get("type") == "volume" else None), item.get("target"), options
        parts = str(item).split(":")
        if len(parts) not in {2, 3}:
            return None, None, set()
        return parts[0], parts[1], set(parts[2].split(",")) if len(parts) == 3 else set()

    def key_secrets(self, value: Any, path: str, made: dict[str, Any]) -> None:
        made["secrets"] = []
        for index, item in enumerate(self.entries(value, path)):
            entry = item if isinstance(item, dict) else {"source": str(item)}
            for key in entry:
                if key not in {"source", "target", "mode"}:
                    self.wrong(f"{path}[{index}].{key}", "no counterpart in a manifest")
            source = str(entry.get("source", ""))
            target = str(entry.get("target") or source)
            file = target if target.startswith("/") else f"/run/secrets/{target}"
            mode = _mode(entry.get("mode", "0444"))  # compose's default; ours is stricter
            made["secrets"].append({"resource": self.resource(source), "file": file, "mode": mode})

    def key_tmpfs(self, value: Any, path: str, made: dict[str, Any]) -> None:
        folders = [value] if isinstance(value, str) else self.entries(value, path)
        for index, folder in enumerate(folders):
            if ":" in str(folder):
                self.wrong(f"{path}[{index}]", "tmpfs options have no counterpart", "leave them out")
        made["tmpfs"] = [str(folder) for folder in folders]

    def key_restart(self, value: Any, path: str, made: dict[str, Any]) -> None:
        known = {"no": "never", "always": "always", "on-failure": "on-failure"}
        if value not in known:
            self.wrong(path, f"no counterpart for {value!r}", "no, on-failure and always have one")
        made["restart"] = known.get(str(value), "never")

    def key_cap_add(self, value: Any, path: str, made: dict[str, Any]) -> None:
        names = [str(name).upper() for name in self.entries(value, path)]
        if "ALL" in names:
            self.wrong(path, "all capabilities can't be given", "list those that the program needs")
        made["capabilities"] = [name if name.startswith("CAP_") else f"CAP_{name}" for name in names]

    def key_cap_drop(self, value: Any, path: str, made: dict[str, Any]) -> None:
        if value != ["ALL"]:
            self.wrong(path, "a container has only the capabilities that it lists", "write cap_drop: [ALL] and cap_add")

    def key_deploy(self, value: Any, path: str, made: dict[str, Any]) -> None:
        for key, part in self.mapping(value, path).items():
            for kind, limits in self.mapping(part, f"{path}.{key}").items() if key == "resources" else ():
                for name, amount in self.mapping(limits, f"{path}.resources.{kind}").items():
                    here, rule = f"{path}.resources.{kind}.{name}", {"memory": "mem_limit", "pids": "pids_limit"}
                    if kind != "limits" or name not in {"cpus", "memory", "pids"}:
                        self.wrong(here, "no counterpart in a manifest")
                        continue
                    getattr(self, f"key_{rule.get(name, name)}")(amount, here, made)
            if key != "resources":
                self.wrong(f"{path}.{key}", "no counterpart in a manifest", "only resources.limits has one")

    def key_mem_limit(self, value: Any, path: str, made: dict[str, Any]) -> None:
        found = _SIZE.fullmatch(str(value))
        if not found:
            self.wrong(path, f"{value!r} is not a size", "write it as 256m")
            return
        made.setdefault("limits", {})["memory_mib"] = max(1, int(found[1]) * _UNITS[found[2].lower()] >> 20)

    def key_pids_limit(self, value: Any, path: str, made: dict[str, Any]) -> None:
        made.setdefault("limits", {})["pids"] = value

    def key_cpus(self, value: Any, path: str, made: dict[str, Any]) -> None:
        try:
            made.setdefault("limits", {})["cpus"] = float(value)
        except (TypeError, ValueError):
            self.wrong(path, f"{value!r} is not a number")

    def key_user(self, value: Any, path: str, made: dict[str, Any]) -> None:
        if not re.fullmatch(r"[0-9]+(:[0-9]+)?", str(value)):
            self.wrong(path, f"{value!r} is a name", "write uid or uid:gid as numbers")
        made["user"] = str(value)

    def key_working_dir(self, value: Any, path: str, made: dict[str, Any]) -> None:
        made["working_dir"] = value

    def key_read_only(self, value: Any, path: str, made: dict[str, Any]) -> None:
        made["read_only_root"] = value

    def key_stop_signal(self, value: Any, path: str, made: dict[str, Any]) -> None:
        made["stop_signal"] = value if str(value).startswith("SIG") else f"SIG{value}"

    def words(self, value: Any, path: str) -> list[str]:
        """A command line as a list; a string is split as a shell would."""
        try:
            return shlex.split(value) if isinstance(value, str) else [_text(word) for word in self.entries(value, path)]
        except ValueError as error:
            self.wrong(path, f"cannot be split into words ({error})", "write it as a list")
            return []


def _text(value: Any) -> str:
    """A YAML scalar as the text that a program gets."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _mode(value: Any) -> str:
    """Permission bits: text as it is; a number is what the digits say, since YAML 1.2 reads 0400 as decimal."""
    return value if isinstance(value, str) else f"{value:04d}"
