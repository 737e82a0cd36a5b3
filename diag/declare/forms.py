"""Notations of settings: lists of numbers, of names and of method specs, ranges."""

from __future__ import annotations

from collections.abc import Iterable

from diag.declare import parse
from diag.declare.setting import Form


def names(text: str) -> tuple[str, ...]:
    """`a, b,,a` as ("a", "b"): comma-separated, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def specs(text: str) -> tuple[str, ...]:
    """A comma-separated list of method specs, whose options are comma-separated too.

    A part with = and without : is an option of the spec before it.
    """
    found: list[str] = []
    for part in text.split(","):
        if found and "=" in part and ":" not in part:
            found[-1] += f",{part}"
        else:
            found.append(part.strip())
    return tuple(spec for spec in found if spec)


def _numbers(values: Iterable[float]) -> str:
    return ",".join(f"{value:.9g}" for value in values)


NAMES = Form(lambda option, text: names(text), ",".join, listed=str)
SPECS = Form(lambda option, text: specs(text), ",".join, listed=str)
RATIOS = Form(lambda option, text: tuple(parse.ratios(option, text)), _numbers, listed=float)
SIZES = Form(lambda option, text: tuple(parse.positive(option, text)), _numbers, listed=float)
RANGE = Form(parse.fraction_range, lambda value: f"{value[0]:g}:{value[1]:g}")
