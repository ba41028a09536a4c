"""What a target is, and the register: a function in `fuzz/targets/` registers itself by `@target`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass

One = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """A parser under test.

    `make` imports the parser and returns the function that takes the bytes; it is called while imports are
    instrumented. `seeds` makes good inputs with the fake vendors. `errors` are the names of the errors of
    `casemate.errors` that it may raise; everything else is a crash. Inputs have at most `longest` bytes.
    """

    name: str
    make: Callable[[], One]
    seeds: Callable[[], Iterable[bytes]]
    errors: tuple[str, ...] = ("Malformed",)
    longest: int = 16384


_TARGETS: dict[str, Target] = {}


def target(
    name: str, seeds: Callable[[], Iterable[bytes]], *, errors: tuple[str, ...] = ("Malformed",), longest: int = 16384
) -> Callable[[Callable[[], One]], Callable[[], One]]:
    """Register the decorated function as the `make` of a target."""

    def register(make: Callable[[], One]) -> Callable[[], One]:
        if name in _TARGETS:
            raise ValueError(f"two targets {name!r}")
        _TARGETS[name] = Target(name, make, seeds, errors, longest)
        return make

    return register


def known() -> dict[str, Target]:
    """Every target by name, in order."""
    from fuzz import targets

    for module in pkgutil.iter_modules(targets.__path__):
        importlib.import_module(f"fuzz.targets.{module.name}")
    return dict(sorted(_TARGETS.items()))
