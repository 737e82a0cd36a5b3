"""--fresh of a command whose parts share what they are made of: all but the calibration is made anew, and once."""

from __future__ import annotations

from pathlib import Path


class Afresh:
    """State of one command; `asked` tells whether it was given --fresh."""

    def __init__(self, asked: bool) -> None:
        self._asked = asked
        self._begun: set[Path] = set()

    def first(self, folder: Path) -> bool:
        """Tell whether earlier results in this run folder are to be discarded: asked for, not done in this command."""
        if not self._asked or folder.resolve() in self._begun:
            return False
        self._begun.add(folder.resolve())
        return True
