"""What a command's flags accept, for the same settings said in a file: read from the flags, so that neither drifts."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import Any, get_args, get_type_hints

from typer.models import OptionInfo


class Limits:
    """Of the flags of one command."""

    def __init__(self, command: Callable[..., Any]) -> None:
        self._flags: dict[str, tuple[OptionInfo, Any]] = {}
        for hint in get_type_hints(command, include_extras=True).values():
            for option in get_args(hint)[1:]:
                if isinstance(option, OptionInfo):
                    flags = (option.default, *(option.param_decls or ()))  # in Annotated the first flag is there
                    self._flags |= {flag: (option, get_args(hint)[0]) for flag in flags if isinstance(flag, str)}

    def needed(self, flag: str, value: Any) -> str | None:
        """What the flag needs instead of the value, in words; None where it accepts it. KeyError: no such flag."""
        option, kind = self._flags[flag]
        kinds = get_args(kind) or (kind,)
        for one in kinds:
            if isinstance(one, type) and issubclass(one, Enum):
                known = [str(each.value) for each in one]
                return None if value in known else f"one of {', '.join(known)}"
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        if isinstance(value, float) and math.isnan(value):
            return "a number"
        low, high = option.min, option.max
        if (low is None or value >= low) and (high is None or value <= high):
            return None
        least = "" if low is None else f" of at least {low:g}"
        most = "" if high is None else f"{' and' if least else ' of'} at most {high:g}"
        return f"{'a whole number' if int in kinds else 'a number'}{least}{most}"
