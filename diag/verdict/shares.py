"""Share of the gap to MoBE that is how TD-MoE was run: rows of attribution_shares.csv.

The first one is like for like: against MoBE with the changes that TD-MoE's best run has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from diag.declare.claim import Estimate, between
from diag.verdict.subjects import Row, has, number
from reports.formats import listing

SAME_CHANGES, PRESETS = "same_changes", "presets"
AS_IT_IS = "MoBE as it is"
_WORDS = {"refit": "refit", "budget": "budget shared by sensitivity"}
_SAME = 1e-9


@dataclass(frozen=True)
class Share:
    """`closed` of the gap and the nats that are `left` of it; MoBE was `given` these changes, and not those."""

    closed: Estimate
    left: Estimate
    given: Sequence[str] = ()
    not_given: Sequence[str] = ()

    @property
    def rival(self) -> str:
        """The MoBE it is against."""
        return f"MoBE given the same {listing(list(self.given))}" if self.given else AS_IT_IS


@dataclass(frozen=True)
class Shares:
    """Against MoBE with the same changes, and against its presets; each as far as it was measured.

    `step` is (ladder, step) of TD-MoE's best run; `crossed`: of windows that it was not chosen on.
    """

    found: Mapping[str, Share] = field(default_factory=dict)
    step: tuple[str, str] = ("", "")
    crossed: bool = True

    @staticmethod
    def of(rows: Sequence[Row]) -> Shares:
        """Shares from attribution's table."""
        first = rows[0] if rows else {}
        found: dict[str, Share] = {}
        for row in rows:
            if has(row, "gap_closed", "left_nats"):
                given = _names(row, "given") if row.get("against") == SAME_CHANGES else []
                closed, left = (
                    between(number(row, low), float(row[value]), number(row, high))
                    for low, value, high in (
                        ("gap_low", "gap_closed", "gap_high"),
                        ("left_low", "left_nats", "left_high"),
                    )
                )
                found.setdefault(str(row.get("against")), Share(closed, left, given, _names(row, "not_given")))
        return Shares(found, (str(first.get("ladder") or ""), str(first.get("step") or "")))

    def against(self, which: str) -> Share | None:
        """The share of one kind."""
        return self.found.get(which)

    @property
    def told(self) -> list[Share]:
        """Shares to tell, like for like first; the other one too where it says something else."""
        found = [share for which in (SAME_CHANGES, PRESETS) if (share := self.against(which)) is not None]
        alike = len(found) == 2 and abs((found[0].closed.value or 0) - (found[1].closed.value or 0)) < _SAME
        return found[:1] if alike else found

    @property
    def remarks(self) -> list[str]:
        """All that is not like for like in the share that is told first; nothing where MoBE had all that TD-MoE had."""
        if not self.told:
            return []
        names = list(self.told[0].not_given)
        said = [f"MoBE was not given the {listing(names)}"] if names else []
        return said if self.crossed else [*said, "the best run was chosen on the same windows"]


def share_of(share: Estimate, rest: Estimate, *, refitted: bool, crossed: bool) -> Shares:
    """Shares from a run's own row, where there is no table of them; `refitted`: it has the refit and MoBE has not."""
    return Shares({PRESETS: Share(share, rest, (), ("refit",) if refitted else ())}, crossed=crossed)


def _names(row: Row, column: str) -> list[str]:
    return [_WORDS.get(name, name) for name in str(row.get(column) or "").split(",") if name]
