"""How much of the gap to MoBE is how TD-MoE was run: rows of attribution_shares.csv, and how sentences name them.

The first one is like for like: against MoBE with the changes that TD-MoE's best run has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.formats import fixed, listing
from reports.intervals import Estimate, bare, between
from reports.run import Row, given

SAME_CHANGES, PRESETS = "same_changes", "presets"
AS_IT_IS = "MoBE as it is"
_WORDS = {"refit": "refit", "budget": "budget shared by sensitivity"}
_SAME = 1e-9


@dataclass(frozen=True)
class Shares:
    """Against MoBE with the same changes, and against its presets; each as far as it was measured.

    `crossed`: of windows that TD-MoE's best run was not chosen on, as the table has them.
    """

    rows: Sequence[Row]
    crossed: bool = True

    @property
    def step(self) -> tuple[str, str]:
        """(ladder, step) of TD-MoE's best run over all windows."""
        row = self.rows[0] if self.rows else {}
        return str(row.get("ladder") or ""), str(row.get("step") or "")

    @property
    def like(self) -> Row | None:
        return self._row(SAME_CHANGES)

    @property
    def plain(self) -> Row | None:
        return self._row(PRESETS)

    @property
    def first(self) -> Row | None:
        """The one that is told first."""
        return self.like or self.plain

    @property
    def second(self) -> Row | None:
        """The other one, where it says something else."""
        first, plain = self.first, self.plain
        alike = first is None or plain is None or abs(first["gap_closed"] - plain["gap_closed"]) < _SAME
        return None if alike else plain

    @property
    def remarks(self) -> list[str]:
        """What is not like for like in the row that is told first; nothing where MoBE had all that TD-MoE had."""
        row = self.first
        if row is None:
            return []
        names = [_WORDS.get(name, name) for name in str(row.get("not_given") or "").split(",") if name]
        said = [f"MoBE was not given the {listing(names)}"] if names else []
        return said if self.crossed else [*said, "the best run was chosen on the same windows"]

    def _row(self, against: str) -> Row | None:
        return next((r for r in self.rows if r.get("against") == against and given(r, "gap_closed", "left_nats")), None)


def rival(row: Row) -> str:
    """The MoBE of a row: `MoBE given the same refit`."""
    names = [_WORDS.get(name, name) for name in str(row.get("given") or "").split(",") if name]
    return f"MoBE given the same {listing(names)}" if names and row["against"] == SAME_CHANGES else AS_IT_IS


def size_of(share: Estimate, rest: Estimate, *, signed: bool = False) -> str:
    """What is left in nats; alone where the share has an interval, which then is the only one that is given of it."""
    rest = rest if signed or rest.value >= 0 else rest.turned
    return fixed(rest.value, rest.places, signed=signed) if share.known else bare(rest, signed=signed)


def of_one_run(share: Estimate, rest: Estimate, *, refitted: bool, among: int = 2) -> Shares:
    """Share of a run as its own row has it, where there is no table of shares.

    `refitted`: it has the refit and MoBE has not; `among`: how many it was chosen from.
    """
    row = {"against": PRESETS, "gap_closed": share.value, "gap_low": share.low, "gap_high": share.high}
    row |= {"left_nats": rest.value, "left_low": rest.low, "left_high": rest.high}
    return Shares([row | {"given": "", "not_given": "refit" if refitted else ""}], crossed=among < 2)


def closed(row: Row) -> Estimate:
    """Share of the gap."""
    return between(row.get("gap_low"), float(row["gap_closed"]), row.get("gap_high"))


def left(row: Row) -> Estimate:
    """Nats above MoBE that remain."""
    return between(row.get("left_low"), float(row["left_nats"]), row.get("left_high"))
