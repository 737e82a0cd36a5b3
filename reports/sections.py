"""Section that a command puts on the page: its answer in words, then blocks of text, figure and table."""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.drawing import Figure
from reports.tables import Table


@dataclass(frozen=True)
class Block:
    """One part of a section. `folded` hides the table behind its caption until it is asked for."""

    anchor: str
    title: str
    table: Table | None
    text: str = ""
    figure: Figure | None = None
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """Everything that one command says; `method` is HTML that explains how it was measured,
    `columns` what the columns of its files mean.

    `wide` blocks take the full width, one below the other; `tiles` are many of a kind and flow into columns, with a
    list of links above them.
    """

    title: str
    answer: Sequence[str]
    summary: Table | None
    wide: Sequence[Block]
    tiles_title: str
    tiles: Sequence[Block]
    method: str
    question: str = ""
    columns: Sequence[Table] = ()


@dataclass(frozen=True)
class Opening:
    """Opening before the sections of several runs: the verdict in sentences, and the comparison in blocks.

    Its blocks carry their own figures; their anchors are unique among themselves.
    """

    sentences: Sequence[str]
    blocks: Sequence[Block]
