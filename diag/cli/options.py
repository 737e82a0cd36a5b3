"""Options of the command line, made from declared settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, replace
from enum import StrEnum
from typing import Annotated, Any

import typer

from diag.declare.setting import Setting, declared
from diag.declare.target import Target

DRY_RUN = Annotated[bool, typer.Option("--dry-run", help="print jobs, bytes to read and peak memory, do nothing")]
QUIET = Annotated[bool, typer.Option("--quiet", help="show no progress on stderr")]
Parameters = list[inspect.Parameter]


def of_target(names: Sequence[str]) -> Parameters:
    """Options of `Target` with these names, after --model, which every command takes."""
    known = declared(Target)
    return [option(known[name]) for name in ("model", *names)]


def of_run() -> Parameters:
    """--dry-run and --quiet."""
    return [parameter("dry_run", DRY_RUN, False), parameter("quiet", QUIET, False)]


def of_settings(kind: type[Any]) -> Parameters:
    """Every setting of the class, its own before those of its bases, with what the command means by itself."""
    own = sorted(declared(kind).values(), key=lambda each: each.name not in kind.__annotations__)
    return [option(each, getattr(kind, "ALONE", None)) for each in own]


def option(setting: Setting, methods: Sequence[str] | None = None) -> inspect.Parameter:
    """`methods` are those of the command where none are named."""
    told, default = setting.declared, setting.default
    help = told.help
    if told.inherited and default is None:
        default = told.alone
        if default is None and methods is not None:
            help += f" (default: {','.join(methods)}, or none with --compressed)" if methods else " (default: none)"
    more: dict[str, Any] = {}
    if setting.kind in (int, float):
        more |= {"min": told.least, "max": told.most}
    kind: Any = str if told.form is not None else setting.kind
    shape = _choice(setting) if told.choices else kind
    needed: Any = shape if default is not None else shape | None
    shown = inspect.Parameter.empty if default is MISSING else setting.write(default)
    return parameter(setting.name, Annotated[needed, typer.Option(setting.option, help=help, **more)], shown)


def _choice(setting: Setting) -> Any:
    """An enumeration of the choices, which is how typer knows them."""
    members = [(f"{name}_".replace("-", "_"), name) for name in setting.declared.choices]
    return StrEnum(setting.name.title(), members)  # type: ignore[misc]


def optional(setting: Setting) -> inspect.Parameter:
    """An option that changes what a file or a preset says: None where it is not given."""
    return option(replace(setting, default=None, declared=replace(setting.declared, inherited=False)))


def read(kind: type[Any], given: Mapping[str, Any]) -> Any:
    """The settings, or the target, of what was typed; InputError where a text is none of its kind."""
    return kind(**{name: each.read(plain(given[name])) for name, each in declared(kind).items() if name in given})


def plain(value: Any) -> Any:
    """A choice as its text, anything else as it is."""
    return value.value if isinstance(value, StrEnum) else value


def made(
    name: str, help: str, parameters: Iterable[inspect.Parameter], run: Callable[..., None]
) -> Callable[..., None]:
    """A command for typer that calls `run` with what was typed, by name."""

    def command(**given: Any) -> None:
        run(**given)

    listed = list(parameters)
    command.__name__, command.__doc__ = name, help
    command.__signature__ = inspect.Signature(listed)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in listed}
    return command


def parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """One option, for `made`."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
