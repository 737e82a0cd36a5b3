"""The ways in which a user's input can be wrong. Anything else that is raised is our mistake."""

from __future__ import annotations

from collections.abc import Sequence

NO_MEMORY = "can't allocate memory"  # torch on a CPU raises a RuntimeError


def shown(value: object, most: int = 60) -> str:
    """A value out of a file, for a message: as Python writes it, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a list in a list in a list
        text = f"a {type(value).__name__} too long to write"
    return text if len(text) <= most else text[: most - 3] + "..."


def out_of_memory(error: BaseException) -> str | None:
    """What to say of an error that a computer or GPU with too little memory raised; None for any other."""
    text = str(error).strip()
    if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError" and NO_MEMORY not in text:
        return None
    reason = f" ({text.splitlines()[0][-120:]})" if text else ""
    return f"out of memory{reason}; give less --memory, a shorter --window or fewer layers, or another --device"


class InputError(ValueError):
    """Found before any long work: a path, an option, a config field, a header. It says where and what to do."""


class MissingShards(InputError):
    """Shards that the index names are not there."""

    def __init__(self, shards: Sequence[str], where: str) -> None:
        super().__init__(f"{', '.join(shards)}: named in the index but not in {where}; download the shards")
        self.shards = tuple(shards)


class WeightError(ValueError):
    """Found only while reading weights (NaN, infinity, a file that changed underfoot). It fails one job only."""
