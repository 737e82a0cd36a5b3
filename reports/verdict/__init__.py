"""The verdict over several runs."""

from collections.abc import Sequence

from reports.drawing import Figure
from reports.run import Run
from reports.sections import Opening


def opening(runs: Sequence[Run]) -> Opening:
    """Verdict and comparison of these runs; empty where they hold nothing to compare."""
    return Opening((), ())


def opening_figures(runs: Sequence[Run]) -> list[Figure]:
    """The figures of the opening's blocks."""
    return []
