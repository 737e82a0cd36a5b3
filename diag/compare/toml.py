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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from diag.compare.experiment import Experiment
from tdmoe.problems import InputError

T = TypeVar("T")
Needed = Callable[[type[Any], str, Any], str | None]  # settings, entry and value; what is needed instead, or None
LARGEST = 2**63 - 1  # of a whole number in TOML
NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def read(path: Path) -> dict[str, Any]:
    """The file's entries; InputError where it cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a byte order mark
    except OSError as error:
        raise InputError("config", path, f"cannot be read ({error.strerror or error})", "give a TOML file") from error
    except (ValueError, RecursionError) as error:  # of TOML, of what is not UTF-8, and of what is nested without end
        raise InputError(
            "config", path, f"is not TOML ({str(error)[:120]})", "see the README for what it may say"
        ) from error


def text_of(entries: Mapping[str, Any], name: str, path: Path) -> str | None:
    """What a file says of this, as `preset` or `model`, if anything; InputError where it is no text."""
    found = entries.get(name)
    if found is not None and not isinstance(found, str):
        raise _wrong(f"--config {path}", name, found, NAMES[str])
    return found


def filled(
    base: Experiment, entries: Mapping[str, Any], path: Path, needed: Needed = lambda kind, name, value: None
) -> Experiment:
    """`base` with what the file says; InputError names field, value, and what is needed or known.

    `needed` tells what the commands' own flags would refuse. What is as by default stands for "not given" too.
    """
    said = {name: value for name, value in entries.items() if name != "preset"}
    return _Filling(f"--config {path}", needed).changed(base, said, "", ("preset",))


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


@dataclass(frozen=True)
class _Filling:
    """`where` begins every message."""

    where: str
    needed: Needed

    def changed(self, base: T, said: Mapping[str, Any], inside: str, also: tuple[str, ...] = ()) -> T:
        """`base` with these entries, whose names begin with `inside` in messages."""
        kind = type(base)
        hints, defaults = get_type_hints(kind), kind()
        names = [each.name for each in fields(base)]  # type: ignore[arg-type]
        found = {}
        for name, value in said.items():
            if name not in names:
                near = get_close_matches(name, names, 1)
                meant = f"; {near[0]} is meant?" if near else ""
                known = ", ".join([*also, *names])
                raise InputError(f"{self.where}: has no entry {inside}{name}; known are {known}{meant}")
            whole = inside + name
            found[name] = self._value(hints[name], value, getattr(base, name), whole)
            if found[name] == getattr(defaults, name) or isinstance(value, dict | list):
                continue
            if (needed := self.needed(kind, name, found[name])) is not None:
                raise _wrong(self.where, whole, value, needed)
        return replace(base, **found)  # type: ignore[type-var]

    def _value(self, kind: Any, value: Any, base: Any, name: str) -> Any:
        if is_dataclass(kind):
            return self.changed(base, _table(value, self.where, name), f"{name}.")
        if get_origin(kind) is tuple:
            (each, _) = get_args(kind)
            if is_dataclass(each):
                return self._runs(each, value, base, name)
            if not isinstance(value, list):
                raise _wrong(self.where, name, value, f"a list, each of it {NAMES[each]},")
            return tuple(_plain(each, one, self.where, f"{name}[{i}]") for i, one in enumerate(value))
        return _plain(kind, value, self.where, name)

    def _runs(self, kind: Any, value: Any, base: tuple[Any, ...], name: str) -> tuple[Any, ...]:
        """A table changes the one run that there is; a list of tables is what runs."""
        if isinstance(value, list):
            tables = [_table(one, self.where, f"{name}[{i}]") for i, one in enumerate(value)]
            return tuple(self.changed(kind(), one, f"{name}[{i}].") for i, one in enumerate(tables))
        table = _table(value, self.where, name)
        if len(base) > 1:
            times = f"{name} runs {len(base)} times in this preset; write [[{name}]] for each of them"
            raise InputError(f"{self.where}: {times}")
        return (self.changed(base[0] if base else kind(), table, f"{name}."),)


def _table(value: Any, where: str, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(where, name, value, "a table")
    return value


def _plain(kind: type[Any], value: Any, where: str, name: str) -> Any:
    if type(value) is int and not -LARGEST <= value <= LARGEST:
        raise _wrong(where, name, value, "a number of 64 bits")
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
