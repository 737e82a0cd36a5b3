"""What a page of several runs opens with: the verdict in sentences, and every method beside every other."""

from reports.verdict.assemble import opening, opening_figures

__all__ = ["opening", "opening_figures"]
