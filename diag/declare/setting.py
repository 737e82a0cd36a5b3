"""Settings declared once: type, default, help, limits, and whether a result depends on them.

A command's settings are the fields of a frozen dataclass, each made by `setting`. From them are made the command line
(diag/cli/options.py), the TOML file of an experiment (diag/experiment/toml.py) and a run's manifest. None means "not
given".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from types import UnionType
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_DECLARED = "setting"


@dataclass(frozen=True)
class Form:
    """A notation for values that are no plain text or number.

    `read(option, text)` gives the value or raises InputError, `write` gives the text again. In a TOML file the value is
    that text, or a list of `listed` where that is given.
    """

    read: Callable[[str, str], Any]
    write: Callable[[Any], str]
    listed: type[Any] | None = None


@dataclass(frozen=True)
class Declared:
    """Arguments of `setting`."""

    help: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    form: Form | None = None
    identity: bool = True
    shared: bool = False
    inherited: bool = False
    alone: Any = None


def setting(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: Sequence[str] = (),
    form: Form | None = None,
    identity: bool = True,
    shared: bool = False,
    inherited: bool = False,
    alone: Any = None,
) -> Any:
    """A field of a settings class; `default` ... for one that has to be given.

    `least` and `most` are limits of a number; `least` of a list, how many it has. `identity`: results with another
    value are not used again. In an experiment a `shared` setting is said once for all its parts, and an `inherited` one
    that a part leaves out is the experiment's; `alone` is its value in a command that runs by itself.
    """
    declared = Declared(help, least, most, tuple(choices), form, identity, shared, inherited, alone)
    return field(default=MISSING if default is ... else default, metadata={_DECLARED: declared})


@dataclass(frozen=True)
class Setting:
    """One field with what was declared of it. `kind` is its type without None."""

    name: str
    kind: Any
    default: Any  # dataclasses.MISSING where it has to be given
    declared: Declared

    @property
    def option(self) -> str:
        """The flag, as --calibration-text."""
        return "--" + self.name.replace("_", "-")

    @property
    def optional(self) -> bool:
        """Tell whether it may be left out without having a value then."""
        return self.default is None

    def read(self, text: Any) -> Any:
        """The value of what stands on the command line; InputError where the text is none."""
        form = self.declared.form
        return text if form is None or text is None else form.read(self.name, text)

    def write(self, value: Any) -> Any:
        """The text that would stand on the command line."""
        form = self.declared.form
        return value if form is None or value is None or value is MISSING else form.write(value)

    def needed(self, value: Any) -> str | None:
        """Words for what is needed instead of this value; None where it is within the limits."""
        told = self.declared
        if told.choices:
            return None if value in told.choices else f"one of {', '.join(told.choices)}"
        if isinstance(value, tuple):
            return f"at least {told.least:g}" if told.least is not None and len(value) < told.least else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if isinstance(value, float) and math.isnan(value):
            return "a number"
        if (told.least is None or value >= told.least) and (told.most is None or value <= told.most):
            return None
        least = "" if told.least is None else f" of at least {told.least:g}"
        most = "" if told.most is None else f"{' and' if least else ' of'} at most {told.most:g}"
        return f"{WORDS[self.kind]}{least}{most}"


def declared(kind: type[Any]) -> dict[str, Setting]:
    """The settings of a class by name, in order; fields that were not made by `setting` are none."""
    hints = get_type_hints(kind)
    return {
        each.name: Setting(each.name, _plain(hints[each.name]), each.default, each.metadata[_DECLARED])
        for each in fields(kind)
        if _DECLARED in each.metadata
    }


def identified(settings: Any) -> dict[str, Any]:
    """The fields that results depend on: all but those declared with `identity=False`."""
    return {
        each.name: getattr(settings, each.name)
        for each in fields(settings)
        if each.metadata.get("identity", getattr(each.metadata.get(_DECLARED), "identity", True))
    }


def derived(default: Any, *, identity: bool = True) -> Any:
    """A field that no user sets: it follows from others, or from where a command runs."""
    return field(default=default, metadata={"identity": identity})


def _plain(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        return next(each for each in get_args(hint) if each is not type(None))
    return hint


class Settings:
    """Base of a probe's settings, a frozen dataclass whose docstring is the command's help.

    `TARGET` names the fields of `Target` that the command takes, `ORDER` its place among the parts of an experiment.
    """

    TARGET: ClassVar[tuple[str, ...]] = ()
    ORDER: ClassVar[int] = 100
    LAYERS: ClassVar[str] = "compressed"  # of an experiment that it takes: those that are compressed, asked for, or all

    def by_itself(self) -> Self:
        """The settings of a command that runs by itself: what an experiment would say is as declared."""
        return self._filled({each.name: each.declared.alone for each in declared(type(self)).values()})

    def within(self, said: dict[str, Any]) -> Self:
        """The settings of a part of an experiment that says this for all its parts."""
        shared = {each.name for each in declared(type(self)).values() if each.declared.shared}
        given = replace(self, **{name: value for name, value in said.items() if name in shared})  # type: ignore[type-var]
        return given._filled(said)

    def check(self) -> None:
        """InputError where the settings are wrong whatever the model is."""

    def specs(self, projections: str) -> list[str]:
        """Methods for which a calibration has to serve, of these projections."""
        return list(getattr(self, "methods", None) or ())

    def left_out(self, said: dict[str, Any]) -> list[str]:
        """Notes on what is not measured in an experiment that says this for all its parts."""
        return []

    def _filled(self, values: dict[str, Any]) -> Self:
        """The same with these values of inherited settings that were not given."""
        return replace(self, **dict(self._missing(values)))  # type: ignore[type-var]

    def _missing(self, values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, each in declared(type(self)).items():
            if each.declared.inherited and getattr(self, name) is None and values.get(name) is not None:
                yield name, values[name]
