"""How a text became losses: only losses of one protocol are comparable.

A column is a text, the number of its windows, and how they were read: joined, cut, scored, begun, in which type of
weights. Runs that say the same share it; a run that does not say all of it has columns of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reports.formats import counted
from reports.verdict.arenas import Arena
from reports.verdict.subjects import Subject, plain

_WEIGHTS = " weights"  # what the part of a protocol that names their type ends with


@dataclass(frozen=True)
class Column:
    """`protocol` is in words, part by part; `run` is set where it is not known, and names the run."""

    text: str
    windows: int | None
    protocol: tuple[str, ...] = ()
    run: str = ""


def column_of(subject: Subject, arena: Arena) -> Column:
    """That the losses of an arena belong to."""
    found = _attribution(subject, arena) if arena.attributed else _quality(arena)
    return Column(arena.text, arena.windows, found, "" if found else subject.called(arena.run))


def column_names(columns: Sequence[Column]) -> dict[Column, str]:
    """Its text, and where another column has the same text, what tells the two apart."""
    return {column: _name(column, [c for c in columns if c.text == column.text]) for column in columns}


def _quality(arena: Arena) -> tuple[str, ...]:
    """As its table states it."""
    stated = next((str(loss.row["protocol"]) for loss in arena.losses if loss.row.get("protocol")), "")
    return tuple(part for part in stated.removeprefix(f"{arena.text}: ").split(", ") if part)


def _attribution(subject: Subject, arena: Arena) -> tuple[str, ...]:
    """In the words of `quality`: texts are taken as they are, without overlap and without added tokens."""
    config = subject.runs[arena.run]["config"]
    window, dtype = config.get("window"), config.get("dtype")
    if not isinstance(window, int) or not isinstance(dtype, str):
        return ()
    said = ("text as it is", f"windows of {window} tokens", f"{window - 1} of each scored", "no BOS")
    return (*said, f"{dtype}{_WEIGHTS}")


def _name(column: Column, alike: Sequence[Column]) -> str:
    told = []
    if len({c.windows for c in alike}) > 1:
        told.append("windows unknown" if column.windows is None else counted(column.windows, "window"))
    common = set(column.protocol).intersection(*(c.protocol for c in alike if c.protocol))
    told += [part.removesuffix(_WEIGHTS) for part in column.protocol if part not in common]
    told += [column.run] if column.run and len(alike) > 1 else []
    return plain(column.text) + (f" ({', '.join(_lines(told))})" if told else "")


def _lines(parts: Iterable[str]) -> list[str]:
    return [plain(part) for part in parts]
