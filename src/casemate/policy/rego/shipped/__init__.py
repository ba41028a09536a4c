"""The policies that Casemate ships, as Rego: what holds where nobody set another one.

The broker answers for them without a child process: their answers are `casemate.release.ear.status` and the built-in
rules, and a test holds the two to each other.
"""

from __future__ import annotations

from importlib.resources import files

CLASSES = ("cpu", "gpu", "switch", "ppcie")
RESOURCE = "resource"


def text(name: str) -> str | None:
    """The text of `default_<class>` or `resource`, None when there is no such policy."""
    if name != RESOURCE and name not in {f"default_{kind}" for kind in CLASSES}:
        return None
    return (files(__package__) / f"{name}.rego").read_text("utf-8")
