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
TOGETHER = "together"


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


def find(name: str) -> Target:
    """A target by its name; `TOGETHER` is all of them, told apart by an input's first byte."""
    return _together() if name == TOGETHER else known()[name]


def _together() -> Target:
    targets = list(known().values())

    def make() -> One:
        parsers = [guarded(target) for target in targets]

        def one(data: bytes) -> None:
            if data:
                parsers[data[0] % len(parsers)](data[1:])

        return one

    def seeds() -> Iterable[bytes]:
        for number, target in enumerate(targets):
            yield from (bytes([number]) + seed for seed in target.seeds())

    return Target(TOGETHER, make, seeds, longest=max(target.longest for target in targets))


def guarded(target: Target) -> Callable[[bytes], None]:
    """The parser with its own errors taken as answers."""
    run = target.make()
    import casemate.errors

    own = tuple(getattr(casemate.errors, name) for name in target.errors)

    def one(data: bytes) -> None:
        try:
            run(data)
        except own:
            return

    return one


def known() -> dict[str, Target]:
    """Every target by name, in order."""
    from fuzz import targets

    for module in pkgutil.iter_modules(targets.__path__):
        importlib.import_module(f"fuzz.targets.{module.name}")
    return dict(sorted(_TARGETS.items()))
