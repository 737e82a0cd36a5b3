"""What a page of several runs opens with, and its figures: a pure function of the runs' tables."""

from collections.abc import Iterator, Sequence

from reports.drawing import Figure
from reports.run import Run
from reports.sections import Block, Opening
from reports.verdict.comparing import comparison
from reports.verdict.costs import costs_block
from reports.verdict.geometry import geometry_block
from reports.verdict.paper_exponents import exponents_block
from reports.verdict.paper_tradeoffs import tradeoff_blocks
from reports.verdict.pareto import pareto_block
from reports.verdict.routing import routing_block
from reports.verdict.sentences import sentences
from reports.verdict.subjects import Subject, subjects
from reports.verdict.table import comparison_blocks


def opening(runs: Sequence[Run]) -> Opening:
    """The verdict, and per model the comparison: only blocks that something was measured for."""
    return Opening(sentences(runs), [block for subject in subjects(runs) for block in _blocks(subject)])


def opening_figures(runs: Sequence[Run]) -> list[Figure]:
    """Those of the blocks, in their order."""
    return [block.figure for block in opening(runs).blocks if block.figure is not None]


def _blocks(subject: Subject) -> Iterator[Block]:
    found = comparison(subject)
    yield from comparison_blocks(subject, found)
    for build in (pareto_block, geometry_block, routing_block, costs_block):
        if (block := build(subject, found)) is not None:
            yield block
    if (block := exponents_block(subject)) is not None:
        yield block
    yield from tradeoff_blocks(subject, found)
