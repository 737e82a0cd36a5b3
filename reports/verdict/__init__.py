"""What a page of several runs opens with: the verdict in sentences, and every method beside every other."""

from reports.verdict.assemble import opening, opening_figures
from reports.verdict.beside import BESIDE

__all__ = ["BESIDE", "opening", "opening_figures"]
