"""Method specs, NAME[:key=value,...]: on the command line, in tables, in manifests.

    tdmoe    tdmoe:allocation=published,whitening=none    rtn:bits=4,group=128

Options are the fields of a frozen dataclass of strings (a Literal of what is allowed), whole numbers, floats and
booleans. The canonical text of a spec names only what differs from the defaults, in the order of the fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from tdmoe.problems import InputError

Options = TypeVar("Options")


def split(text: str) -> tuple[str, dict[str, str]]:
    """Name and values of a spec; InputError where it is malformed."""
    name, colon, rest = text.partition(":")
    values: dict[str, str] = {}
    for pair in rest.split(",") if colon else ():
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not key or not equals or not value:
            raise InputError("method", text, f"{pair!r} is no option", "write NAME:key=value,key=value")
        if key in values:
            raise InputError("method", text, f"{key} is given twice", "keep one")
        values[key] = value
    return name.strip(), values


def options(kind: type[Options], values: Mapping[str, str], spec: str) -> Options:
    """An options object from the text values of a spec; InputError names option, value and what is allowed."""
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise InputError("method", spec, f"has no option {key!r}", f"it has {', '.join(names) or 'none'}")
    return kind(**{key: _value(hints[key], key, value, spec) for key, value in values.items()})


def text(name: str, chosen: Any) -> str:
    """The canonical spec: what differs from the defaults."""
    changed = [
        f"{field.name}={_word(value)}"
        for field in fields(chosen)
        if (value := getattr(chosen, field.name)) != field.default
    ]
    return name + (":" + ",".join(changed) if changed else "")


def _value(kind: Any, key: str, value: str, spec: str) -> Any:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError("method", spec, f"{key} is {value!r}", f"give one of {', '.join(get_args(kind))}")
        return value
    if kind is bool:
        if value not in ("true", "false"):
            raise InputError("method", spec, f"{key} is {value!r}", "true or false is needed")
        return value == "true"
    try:
        return kind(value)
    except ValueError as error:
        needed = "a whole number" if kind is int else "a number"
        raise InputError("method", spec, f"{key} is {value!r}", f"{needed} is needed") from error


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
