"""An experiment as a TOML file: read with every wrong entry named, and written with every default.

model = "mini"
preset = "quick"        # what is not said below is as there; without one, only what is said runs

[quality]               # settings of a command that the preset runs once: those that differ
windows = 128

[[drift]]               # runs of a command, in place of the preset's; `drift = []` for none
text = "enwik8"
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from diag.compare.experiment import Experiment
from tdmoe.problems import InputError

T = TypeVar("T")
NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def read(path: Path) -> dict[str, Any]:
    """The file's entries; InputError where it cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config {path}: cannot be read ({error.strerror or error}); give a TOML file") from error
    except ValueError as error:  # of TOML, and of what is not UTF-8
        raise InputError(f"--config {path}: is not TOML ({error}); see the README for what it may say") from error


def preset_of(entries: Mapping[str, Any], path: Path) -> str | None:
    """The preset that a file begins from, if it names one."""
    found = entries.get("preset")
    if found is not None and not isinstance(found, str):
        raise InputError(f"--config {path}: preset is {_said(found)}, text is needed")
    return found


def filled(base: Experiment, entries: Mapping[str, Any], path: Path) -> Experiment:
    """`base` with what the file says; InputError names field, value, and what is needed or known."""
    said = {name: value for name, value in entries.items() if name != "preset"}
    return _changed(base, said, f"--config {path}", "", ("preset",))


def written(experiment: Experiment) -> str:
    """The whole experiment: `filled(Experiment(), ...)` of this text gives the same again."""
    plain, tables = [], []
    for each in fields(experiment):
        value = getattr(experiment, each.name)
        if is_dataclass(value):
            tables.append((f"[{each.name}]", value))
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):
            tables += [(f"[[{each.name}]]", found) for found in value]
        else:
            plain.append(f"{each.name} = {_toml(value)}")
    blocks = ["\n".join(plain)]
    for head, table in tables:
        blocks.append("\n".join([head, *(f"{f.name} = {_toml(getattr(table, f.name))}" for f in fields(table))]))
    return "\n\n".join(blocks) + "\n"


def _changed(base: T, said: Mapping[str, Any], where: str, inside: str, also: tuple[str, ...] = ()) -> T:
    hints = get_type_hints(type(base))
    names = [each.name for each in fields(base)]  # type: ignore[arg-type]
    found = {}
    for name, value in said.items():
        if name not in names:
            near = get_close_matches(name, names, 1)
            meant = f"; {near[0]} is meant?" if near else ""
            raise InputError(f"{where}: has no entry {inside}{name}; known are {', '.join([*also, *names])}{meant}")
        found[name] = _value(hints[name], value, getattr(base, name), where, inside + name)
    return replace(base, **found)  # type: ignore[type-var]


def _value(kind: Any, value: Any, base: Any, where: str, name: str) -> Any:
    if is_dataclass(kind):
        return _changed(base, _table(value, where, name), where, f"{name}.")
    if get_origin(kind) is tuple:
        (each, _) = get_args(kind)
        if is_dataclass(each):
            return _runs(each, value, base, where, name)
        if not isinstance(value, list):
            raise _wrong(where, name, value, f"a list, each of it {NAMES[each]},")
        return tuple(_plain(each, one, where, f"{name}[{i}]") for i, one in enumerate(value))
    return _plain(kind, value, where, name)


def _runs(kind: Any, value: Any, base: tuple[Any, ...], where: str, name: str) -> tuple[Any, ...]:
    """A table changes the one run that there is; a list of tables is what runs."""
    if isinstance(value, list):
        tables = [_table(one, where, f"{name}[{i}]") for i, one in enumerate(value)]
        return tuple(_changed(kind(), one, where, f"{name}[{i}].") for i, one in enumerate(tables))
    table = _table(value, where, name)
    if len(base) > 1:
        raise InputError(f"{where}: {name} runs {len(base)} times in this preset; write [[{name}]] for each of them")
    return (_changed(base[0] if base else kind(), table, where, f"{name}."),)


def _table(value: Any, where: str, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(where, name, value, "a table")
    return value


def _plain(kind: type[Any], value: Any, where: str, name: str) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise _wrong(where, name, value, NAMES[kind])
    return value


def _wrong(where: str, name: str, value: Any, needed: str) -> InputError:
    return InputError(f"{where}: {name} is {_said(value)}, {needed} is needed")


def _said(value: Any) -> str:
    return "a table" if isinstance(value, dict) else repr(value)[:80]


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
