"""Runs by model: every table of one model in one place, whichever of its runs wrote it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.formats import visible, without_folders

Run = Mapping[str, Any]
Row = Mapping[str, Any]
_LONGEST = 60  # characters of a name inside a sentence
_IN_A_LEAD = 50  # and before a claim


@dataclass(frozen=True)
class Subject:
    """One model with its runs, in the order given; `place` is its index `among` so many models."""

    place: int
    name: str
    runs: Sequence[Run]
    among: int = 1

    @property
    def lead(self) -> str:
        """Name of the model before a sentence where there are several, without a colon before the claim's."""
        return f"{clause(self.name, _IN_A_LEAD)} — " if self.among > 1 else ""

    def anchor(self, word: str) -> str:
        """Unique on the page, and a file name."""
        return f"verdict-{word}" + (f"-{self.place + 1}" if self.among > 1 else "")

    def title(self, text: str) -> str:
        """A heading, with the model's name where there are several."""
        return f"{text}: {self.name}" if self.among > 1 else text

    def is_called(self, name: str) -> bool:
        """Tell whether its name (a bare one, a hub id, a folder) is that one."""
        own = str(self.runs[0]["model"]).replace("\\", "/").rstrip("/").rpartition("/")[2]
        return own.casefold() == name.casefold()

    def tables(self, table: str) -> Iterator[tuple[int, list[Row]]]:
        """(index of the run, its rows) of all runs that hold the table; numbers that are none count as not measured."""
        for number, run in enumerate(self.runs):
            if rows := run["tables"].get(table):
                yield number, [finite(row) for row in rows]

    def rows(self, table: str) -> list[Row]:
        """Rows of all runs together."""
        return [row for _, rows in self.tables(table) for row in rows]

    def layers(self, number: int) -> str:
        """Layers in a run's settings; nothing where they do not say."""
        found = self.runs[number]["config"].get("layers")
        found = found[0] if isinstance(found, list | tuple) and len(found) == 1 else found
        return found if isinstance(found, str) else ""

    def called(self, number: int) -> str:
        """A run by its command, with a number where several runs have that."""
        commands = [str(run["command"]) for run in self.runs]
        command, before = commands[number], commands[: number + 1].count(commands[number])
        return plain(command) + (f", run {before}" if commands.count(command) > 1 else "")


def subjects(runs: Sequence[Run]) -> list[Subject]:
    """Models by name and fingerprint, in the order given."""
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        grouped.setdefault((str(run["model"]), str(run["fingerprint"])), []).append(run)
    models = [model for model, _ in grouped]
    return [
        Subject(
            place,
            _short(model, _LONGEST) + (f" ({plain(fingerprint)[:8]})" if models.count(model) > 1 else ""),
            ours,
            len(grouped),
        )
        for place, ((model, fingerprint), ours) in enumerate(grouped.items())
    ]


def finite(row: Row) -> dict[str, Any]:
    """The row with every NaN and infinity taken for what it is: nothing measured."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def has(row: Row, *columns: str) -> bool:
    """Tell whether the row holds a value in each of these columns."""
    return all(row.get(column) is not None for column in columns)


def number(row: Row, column: str) -> float | None:
    """The value of a column; None where there is none."""
    return None if row.get(column) is None else float(row[column])


def plain(text: object, most: int = _LONGEST) -> str:
    """Text from outside as one line inside a sentence."""
    line = " ".join(visible(without_folders(str(text))).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def clause(text: str, most: int) -> str:
    """Text from outside inside a claim: without what would end the claim before its colon (`reports.formats.lead`)."""
    line = re.sub(r"[:.]+(?= )", "", _short(text, most)).rstrip(":.")
    line = line if line.count("(") == line.count(")") else re.sub(r"[()]", "", line)
    return " ".join(line.split())


def _short(text: str, most: int) -> str:
    """One line, cut in its middle: names of models differ at their ends too."""
    line = plain(text, len(text) * 12)
    half = most // 2
    return line if len(line) <= most else f"{line[: most - half]}…{line[1 - half :]}"
