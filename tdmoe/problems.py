"""The ways in which a user's input can be wrong. Anything else that is raised is our mistake."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """Found before any long work: a path, an option, a config field, a header. It says where and what to do."""


class MissingShards(InputError):
    """Shards that the index names are not there."""

    def __init__(self, shards: Sequence[str], where: str) -> None:
        super().__init__(f"{', '.join(shards)}: named in the index but not in {where}; download the shards")
        self.shards = tuple(shards)


class WeightError(ValueError):
    """Found only while reading weights (NaN, infinity, a file that changed underfoot). It fails one job only."""
