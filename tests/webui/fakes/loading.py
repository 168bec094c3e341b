"""Modules made of objects, put where `import modules.…` finds them; our library is imported anew beside them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import lib_instantstyle

WING = "lib_instantstyle.webui"


def module(live: Mapping[str, Callable[[], Any]] | None = None, **contents: Any) -> ModuleType:
    """A module with these names in it; those of `live` are asked anew each time."""
    made = ModuleType("made")
    vars(made).update(contents)

    def asked(name: str) -> Any:
        if live is None or name not in live:
            raise AttributeError(f"this module has no {name}")
        return live[name]()

    vars(made)["__getattr__"] = asked
    return made


def replaced(host: Mapping[str, ModuleType]) -> list[str]:
    """The modules that go away while a host runs: its own, and our wing, which holds on to the last host's."""
    roots = {one.partition(".")[0] for one in host}
    return [name for name in sys.modules if name.partition(".")[0] in roots or f"{name}.".startswith(f"{WING}.")]


@contextmanager
def installed(host: Mapping[str, ModuleType]) -> Iterator[None]:
    """These modules, by dotted names, are the only ones under their first names; afterwards all is as before."""
    kept = {name: sys.modules.pop(name) for name in replaced(host)}
    sys.modules.update(with_packages(host))
    try:
        yield
    finally:
        for name in replaced(host):
            del sys.modules[name]
        sys.modules.update(kept)
        lib_instantstyle.__dict__.pop("webui", None)
        if WING in kept:
            lib_instantstyle.__dict__["webui"] = kept[WING]


def with_packages(host: Mapping[str, ModuleType]) -> dict[str, ModuleType]:
    """The modules and the packages that they lie in, each with what lies in it."""
    found = dict(host)
    for name in sorted(host, key=len, reverse=True):
        while "." in name:
            parent, _, child = name.rpartition(".")
            package = found.setdefault(parent, ModuleType(parent))
            vars(package).setdefault("__path__", [])
            vars(package)[child] = found[name]
            name = parent
    return found
