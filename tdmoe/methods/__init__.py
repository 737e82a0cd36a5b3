"""Methods that compress a stack: a file each, found by its name; it is imported when the method is used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from tdmoe import spec
from tdmoe.method.contract import Allotment, Method, Needs, Sharing, StackStatistics
from tdmoe.problems import InputError

__all__ = [
    "NAMES",
    "Allotment",
    "Method",
    "Needs",
    "Sharing",
    "StackStatistics",
    "described",
    "method",
    "needs",
    "parse",
    "register",
    "registered",
    "versions",
]

NAMES = tuple(module.name for module in iter_modules(__path__))  # of this package; none is imported for it
_REGISTERED: dict[str, Method] = {}


def register(added: Method) -> None:
    """Offer a method of your own wherever a spec is read, until this process ends; it replaces an earlier one so named.

    What was made with that earlier one is used again unless its VERSION differs: give a changed method another one, or
    --fresh. InputError where the name is none for a spec, or a method of this package has it.
    """
    name, options, version = (getattr(added, known, None) for known in ("NAME", "OPTIONS", "VERSION"))
    for wrong, why, remedy in (
        (not isinstance(added, Method), f"{added!r} is no method", "give an instance of a subclass of methods.Method"),
        (not re.fullmatch("[a-z][a-z0-9_]*", str(name)), f"NAME is {name!r}", "give a lower-case word"),
        (name in NAMES, f"NAME is {name!r}, which is a method of this package", "give another one"),
        (not (isinstance(options, type) and is_dataclass(options)), f"OPTIONS is {options!r}", "give a dataclass"),
        (not isinstance(version, str | int | None), f"VERSION is {version!r}", "give a text, a whole number or none"),
    ):
        if wrong:
            raise InputError("register", None, why, remedy)
    _REGISTERED[str(name)] = added


def registered() -> tuple[str, ...]:
    """Names of the methods that this process alone knows."""
    return tuple(_REGISTERED)


def method(name: str) -> Method:
    """The method of that name; InputError lists the known ones."""
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in NAMES:
        raise InputError("method", name, "is no method", f"give one of {', '.join([*NAMES, *_REGISTERED])}")
    found: Method = import_module(f"{__name__}.{name}").METHOD
    return found


def described() -> dict[str, tuple[str, str, str]]:
    """{name: (display name, family, reference)} of all methods, for pages; imports them."""
    known = map(method, (*NAMES, *_REGISTERED))
    return {each.NAME: (each.DISPLAY, each.FAMILY, each.REFERENCE) for each in known}


def needs(text: str) -> Needs:
    """The needs of a spec's method of a calibration."""
    found, options = parse(text)
    return found.needs(options)


def versions(specs: Iterable[str]) -> dict[str, str | int]:
    """Versions of the methods among these that have one, by their names."""
    own = {name: method(name).VERSION for name in sorted({spec.split(text)[0] for text in specs})}
    return {name: version for name, version in own.items() if version is not None}


def parse(text: str, flags: Mapping[str, str | None] | None = None) -> tuple[Method, Any]:
    """Method and options of a spec, and of options of the same names given as `flags` beside it (None: not given)."""
    name, values = spec.split(text)
    found = method(name)
    for key, value in (flags or {}).items():
        if value is None:
            continue
        if values.setdefault(key, value) != value:
            raise InputError(key, value, f"the method says {key}={values[key]}", "give one of them")
        if key not in {field.name for field in fields(found.OPTIONS)}:
            has = ", ".join(field.name for field in fields(found.OPTIONS)) or "none"
            raise InputError(key, value, f"{name} has no such option", f"it has {has}")
    options = spec.options(found.OPTIONS, values, text)
    found.check_options(options)
    return found, options
