"""Compilation of a policy in a child of its own, bounded in time, memory and what it can reach."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

from casemate.drivers.rego.confine import TOO_LARGE
from casemate.errors import Malformed, Problem, Unavailable
from casemate.policy.rego import inputs
from casemate.policy.rego.plan import Program

MAX_TEXT = 256 << 10
SECONDS = 10.0
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True)
class Compiled:
    """A policy that can be evaluated. `rules` are those without arguments, `digest` is `sha256:<hex>` of the text."""

    digest: str
    plan: dict[str, Any]
    rules: tuple[str, ...]
    needs: tuple[str, ...]


def program(module: str) -> list[str]:
    """The command line of a child: isolated, without bytecode files."""
    return [sys.executable, "-I", "-B", "-m", f"casemate.drivers.rego.{module}"]


def compile_policy(text: str, *, seconds: float = SECONDS) -> Compiled:
    """The plan of a policy; `Malformed` with every error that the compiler names, also when it breaks down on it."""
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_TEXT:
        raise Malformed(f"policy: at most {MAX_TEXT} bytes are allowed")
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise Malformed("policy: text in UTF-8 without zero bytes is wanted")
    made = _run(raw + b"\n", seconds)  # the compiler cannot read a comment that ends with the text
    if "plan" not in made:
        problems = tuple(Problem("policy", str(e["message"]), line=int(e["line"])) for e in made["errors"])
        raise Malformed("policy: " + "; ".join(map(str, problems))[:1000], problems=problems)
    parsed = Program(made["plan"])
    return Compiled(inputs.text_digest(text), made["plan"], tuple(parsed.rules), tuple(parsed.needs))


def _run(raw: bytes, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="casemate-rego-") as folder:
        try:
            done = subprocess.run(
                program("compiler"),
                input=raw,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=seconds,
                env=ENVIRONMENT,
                cwd=folder,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Malformed(f"policy: it was not compiled within {seconds:.0f} seconds") from None
        except OSError as error:
            raise Unavailable(f"the policy compiler does not start: {os.strerror(error.errno or 0)}") from error
    if done.returncode == TOO_LARGE:
        raise Malformed("policy: the compiler needs too much memory for it")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise Malformed(f"policy: the compiler broke down on it ({name})", hint="write that part of it another way")
    try:
        made = json.loads(done.stdout)
    except (ValueError, RecursionError):
        raise Malformed("policy: the compiler broke down on it", hint="write that part of it another way") from None
    if not isinstance(made, dict) or not ("plan" in made or made.get("errors")):
        raise Malformed("policy: the compiler gave no plan")
    return made
