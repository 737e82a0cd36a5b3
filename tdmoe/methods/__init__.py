"""How a stack is compressed. One file a method, one row here; a module is imported when its method is used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any

from tdmoe import spec
from tdmoe.methods.base import Allotment, Method, Needs, StackStatistics
from tdmoe.problems import InputError

__all__ = [
    "METHODS",
    "Allotment",
    "Method",
    "Needs",
    "StackStatistics",
    "method",
    "parse",
    "register",
    "registered",
    "versions",
]

METHODS = {
    "tdmoe": "tdmoe.methods.tdmoe",
    "mobe": "tdmoe.methods.mobe",
    "moe_svd": "tdmoe.methods.moe_svd",
    "svd_llm": "tdmoe.methods.svd_llm",
    "svd": "tdmoe.methods.svd_llm",
    "d2_moe": "tdmoe.methods.d2_moe",
    "rtn": "tdmoe.methods.rtn",
    "identity": "tdmoe.methods.controls",
    "cast": "tdmoe.methods.controls",
    "drop": "tdmoe.methods.controls",
    "mean": "tdmoe.methods.controls",
}
_REGISTERED: dict[str, Method] = {}


def register(added: Method) -> None:
    """Offer a method of your own wherever a spec is read, until this process ends; it replaces an earlier one so named.

    What was made with that earlier one is used again unless its VERSION differs: give a changed method another one, or
    --fresh. InputError where the name is none for a spec, or a method of this package has it.
    """
    if not isinstance(added, Method):
        raise InputError(f"register: {added!r} is no method; give an instance of a subclass of tdmoe.methods.Method")
    name, options = getattr(added, "NAME", None), added.OPTIONS
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise InputError(f"register: NAME is {name!r}; a lower-case word of letters, digits and _ is needed")
    if name in METHODS:
        raise InputError(f"register: NAME is {name!r}, which is a method of this package; give another one")
    if not (isinstance(options, type) and is_dataclass(options)):
        raise InputError(f"register: OPTIONS of {name} is {options!r}; a dataclass of what its spec may say is needed")
    if not isinstance(added.VERSION, str | int | None):
        raise InputError(
            f"register: VERSION of {name} is {added.VERSION!r}; a text or a whole number is needed, or none"
        )
    _REGISTERED[name] = added


def registered() -> tuple[str, ...]:
    """Names of the methods that this process alone knows."""
    return tuple(_REGISTERED)


def method(name: str) -> Method:
    """The method of that name; InputError lists the known ones."""
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in METHODS:
        raise InputError(f"--method {name}: is no method; give one of {', '.join([*METHODS, *_REGISTERED])}")
    offered: tuple[Method, ...] = import_module(METHODS[name]).OFFERED
    return next(found for found in offered if name == found.NAME)


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
        flag = f"--{key.replace('_', '-')} {value}"
        if values.setdefault(key, value) != value:
            raise InputError(f"{flag}: --method says {key}={values[key]}; give one of them")
        if key not in {field.name for field in fields(found.OPTIONS)}:
            has = ", ".join(field.name for field in fields(found.OPTIONS)) or "none"
            raise InputError(f"{flag}: {name} has no such option; it has {has}")
    options = spec.options(found.OPTIONS, values, f"--method {text}")
    found.check_options(options)
    return found, options
