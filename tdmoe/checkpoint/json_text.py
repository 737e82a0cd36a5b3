"""JSON of unknown origin: whatever is wrong with it is a ValueError with a short message."""

from __future__ import annotations

import json
from typing import Any

DIGITS = 19  # of a number that a file offset or a dimension may have


def parse(raw: bytes) -> Any:
    """The value; a whole number of more digits than any size has stays text. A byte order mark is skipped."""
    try:
        return json.loads(raw.decode("utf-8-sig"), parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= DIGITS else digits
