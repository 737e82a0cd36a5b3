"""Figures with their targets, as the tables of RESULTS.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured figure; `met` says whether its target was reached, None where there is none."""

    what: str
    value: str
    target: str = ""
    met: bool | None = None

    def row(self) -> str:
        verdict = {None: "", True: "met", False: "**missed**"}[self.met]
        return f"| {self.what} | {self.value} | {self.target} | {verdict} |"


def section(title: str, figures: list[Figure]) -> str:
    head = f"## {title}\n\n| what | measured | target | |\n| --- | --- | --- | --- |\n"
    return head + "".join(figure.row() + "\n" for figure in figures)


def write(path: Path, heading: str, sections: list[str]) -> None:
    path.write_text(heading + "\n" + "\n".join(sections), encoding="utf-8")
