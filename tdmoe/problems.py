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
    """Message for an error that a computer or GPU with too little memory raised; None for any other."""
    text = str(error).strip()
    if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError" and NO_MEMORY not in text:
        return None
    reason = f" ({text.splitlines()[0][-120:]})" if text else ""
    return f"out of memory{reason}; give less --memory, a shorter --window or fewer layers, or another --device"


class InputError(ValueError):
    """A mistake in the input, found before any long work: "FIELD VALUE: why; remedy".

    `field` is the name of a setting ("ratio"), or a file, tensor or layer; None for `value` where it has none to show.
    `parts` are those of an experiment in which it was found, the outermost first.
    """

    def __init__(self, field: object, value: object = None, why: str = "", remedy: str = "") -> None:
        super().__init__(field, value, why, remedy)
        self.field, self.value, self.why, self.remedy = str(field), value, why, remedy
        self.parts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.said(self.field)

    def said(self, field: str) -> str:
        """The message, with another name for the field: the flag that sets it."""
        head = field if self.value is None else f"{field} {self.value}"
        body = "; ".join(part for part in (self.why, self.remedy) if part)
        return ": ".join([*self.parts, head, *([body] if body else [])])

    def within(self, part: str) -> InputError:
        """The same error, found in this part."""
        self.parts = (part, *self.parts)
        return self


class MissingShards(InputError):
    """Shards that the index names are not there."""

    def __init__(self, shards: Sequence[str], where: str) -> None:
        super().__init__(", ".join(shards), None, f"named in the index but not in {where}", "download the shards")
        self.shards = tuple(shards)


class WeightError(ValueError):
    """Found only while reading weights (NaN, infinity, a file that changed underfoot). It fails one job only."""
