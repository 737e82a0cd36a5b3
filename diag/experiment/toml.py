"""An experiment as a TOML file: read with every wrong entry named, and written with every default.

model = "mini"
preset = "quick"        # what is not said below is as there; without one, only what is said runs

[quality]               # settings of a probe that the preset runs once: those that differ
windows = 128

[[drift]]               # runs of a probe, in place of the preset's; `drift = []` for none
text = "enwik8"
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from diag.declare.probe import probes
from diag.declare.setting import WORDS, Setting, declared
from diag.experiment.experiment import Experiment
from tdmoe.problems import InputError

T = TypeVar("T")
LARGEST = 2**63 - 1  # of a whole number in TOML


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
    """The text that a file says of this, as `preset` or `model`, if any; InputError where it is no text."""
    found = entries.get(name)
    if found is not None and not isinstance(found, str):
        _refuse(path, name, found, WORDS[str])
    return found


def filled(base: Experiment, entries: Mapping[str, Any], path: Path) -> Experiment:
    """`base` with what the file says; InputError names entry, value, and what is needed or known."""
    return _Filling(path).experiment(base, {k: v for k, v in entries.items() if k != "preset"})


def written(experiment: Experiment) -> str:
    """The whole experiment: `filled(Experiment(), ...)` of this text gives the same again."""
    tables = [("", experiment), ("[calibration]", experiment.calibration)]
    tables += [(f"[[{name}]]", each) for name, part in experiment.parts.items() for each in part]
    blocks = ("\n".join([*filter(None, [head]), *_lines(settings)]) for head, settings in tables)
    return "\n\n".join(blocks) + "\n"


def _lines(settings: Any) -> list[str]:
    """One a setting; one that is not given has none."""
    values = {name: (each, getattr(settings, name)) for name, each in declared(type(settings)).items()}
    said = {n: each for n, each in values.items() if each[1] is not None and not each[0].declared.shared}
    return [f"{name} = {_toml(each, value)}" for name, (each, value) in said.items()]


@dataclass(frozen=True)
class _Filling:
    path: Path

    def experiment(self, base: Experiment, said: Mapping[str, Any]) -> Experiment:
        known = probes()
        runs = {name: value for name, value in said.items() if name in known}
        found = {name: self._runs(name, value, base) for name, value in runs.items()}
        plain = {name: value for name, value in said.items() if name not in known and name != "calibration"}
        calibration = base.calibration
        if "calibration" in said:
            calibration = self._changed(calibration, self._table(said["calibration"], "calibration"), "calibration.")
        parts = {name: found.get(name, base.parts.get(name, ())) for name in known}
        base = replace(base, calibration=calibration, parts={name: part for name, part in parts.items() if part})
        return self._changed(base, plain, "", ("preset", "calibration", *known))

    def _runs(self, name: str, value: Any, base: Experiment) -> tuple[Any, ...]:
        """A table changes the one run that there is; a list of tables is what runs."""
        fresh, before = probes()[name].settings(), base.parts.get(name, ())
        if isinstance(value, list):
            tables = [self._table(one, f"{name}[{i}]") for i, one in enumerate(value)]
            return tuple(self._changed(fresh, one, f"{name}[{i}].") for i, one in enumerate(tables))
        table = self._table(value, name)
        if len(before) > 1:
            times = f"{name} runs {len(before)} times in this preset"
            raise InputError("config", self.path, times, f"write [[{name}]] for each of them")
        return (self._changed(before[0] if before else fresh, table, f"{name}."),)

    def _changed(self, base: T, said: Mapping[str, Any], inside: str, also: tuple[str, ...] = ()) -> T:
        """`base` with these entries, whose names begin with `inside` in messages."""
        known = {name: each for name, each in declared(type(base)).items() if not each.declared.shared}
        for name in said:
            if name not in known:
                names = [*also, *known]
                near = get_close_matches(name, names, 1)
                meant = f"; {near[0]} is meant?" if near else ""
                known_names = f"known are {', '.join(names)}{meant}"
                raise InputError("config", self.path, f"has no entry {inside}{name}", known_names)
        return replace(base, **{n: self._value(known[n], value, inside + n) for n, value in said.items()})  # type: ignore[type-var]

    def _value(self, setting: Setting, value: Any, name: str) -> Any:
        form = setting.declared.form
        if form is not None:
            if form.listed is not None and not isinstance(value, list):
                _refuse(self.path, name, value, f"a list, each of it {WORDS[form.listed]},")
            listed = enumerate(value) if form.listed is not None else ()
            plain = tuple(self._plain(form.listed, one, f"{name}[{i}]") for i, one in listed)  # type: ignore[arg-type]
            text = form.write(plain) if form.listed is not None else self._plain(str, value, name)
            try:
                found = form.read(setting.name, text)
            except InputError as error:
                raise InputError("config", self.path, f"{name}: {error}") from error
        else:
            found = self._plain(setting.kind, value, name)
        if (needed := setting.needed(found)) is not None:
            _refuse(self.path, name, value, needed)
        return found

    def _table(self, value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            _refuse(self.path, name, value, "a table")
        return value

    def _plain(self, kind: Any, value: Any, name: str) -> Any:
        kind = kind if kind in WORDS else str
        if type(value) is int and not -LARGEST <= value <= LARGEST:
            _refuse(self.path, name, value, "a number of 64 bits")
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            _refuse(self.path, name, value, WORDS[kind])
        return value


def _refuse(path: Path, name: str, value: Any, needed: str) -> NoReturn:
    said = "a table" if isinstance(value, dict) else repr(value)[:80]
    raise InputError("config", path, f"{name} is {said}, {needed} is needed")


def _toml(setting: Setting, value: Any) -> str:
    form = setting.declared.form
    return _literal(value if form is None or form.listed is not None else form.write(value))


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
