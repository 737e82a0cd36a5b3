"""What a `superweights` run measured, matrix by matrix: its rows of recovery and of entries, under one name."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from reports.drawing import COLOURS, NULL_GREY
from reports.run import Row, Run, given

GROUPS = ("superweight", "top_magnitude", "activation_weighted", "random_inlier")
WORDS = {
    **{"superweight": "super weight", "top_magnitude": "largest magnitude"},
    **{"activation_weighted": "activation-weighted", "random_inlier": "random inliers"},
}
COLOUR = dict(zip(GROUPS, (COLOURS[3], COLOURS[0], COLOURS[1], NULL_GREY), strict=True))
MARKER = dict(zip(GROUPS, ("*", "o", "s", "D"), strict=True))
ROLES = {"superweight": "with a super weight", "strongest_spike": "strongest spike", "control": "control"}


@dataclass(frozen=True)
class Matrix:
    """One down projection whose entries were followed."""

    layer: int
    projection: str
    expert: int | None
    role: str
    recovery: list[Row]
    entries: list[Row]

    @property
    def name(self) -> str:
        return f"L{self.layer} {self.projection}" + ("" if self.expert is None else f", expert {self.expert}")

    @property
    def anchor(self) -> str:
        return f"L{self.layer:03d}-{self.projection}" + ("" if self.expert is None else f"-e{self.expert}")

    @property
    def title(self) -> str:
        return f"{self.name} ({ROLES.get(self.role, self.role)})"

    @property
    def full_rank(self) -> int:
        return int(self.entries[0]["full_rank"])

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.entries[0]["outputs"]), int(self.entries[0]["inputs"])

    @property
    def dense_rank(self) -> float:
        """The rank at which two factors store as much as the matrix."""
        outputs, inputs = self.shape
        return outputs * inputs / (outputs + inputs)

    @property
    def groups(self) -> list[str]:
        """Those with entries."""
        return [group for group in GROUPS if self.of(group)]

    def of(self, group: str) -> list[Row]:
        """The entries of a group."""
        return [row for row in self.entries if row["group"] == group]

    def curve(self, group: str, method: str = "svd") -> list[Row]:
        """Rows of recovery of a group in rising storage."""
        rows = [r for r in self.recovery if (r["method"], r["group"]) == (method, group)]
        if method == "svd":  # also the name of a method, which appears at its ratios
            rows = [r for r in rows if r.get("ratio") is None]
        return sorted((r for r in rows if given(r, "recovered_fraction")), key=lambda r: float(r["stored_bits"]))

    @property
    def methods(self) -> list[str]:
        """Every spec but the truncated SVD, in the order measured."""
        return list(dict.fromkeys(str(row["method"]) for row in self.recovery if row["method"] != "svd"))

    def rank_for(self, group: str, share: float) -> int | None:
        """The smallest rank from which on this share of the group stays recovered."""
        ranks = sorted(int(row["stays_from_rank"]) for row in self.of(group))
        return ranks[max(0, -int(-share * len(ranks) // 1) - 1)] if ranks else None

    def middle(self, group: str, column: str) -> float | None:
        """Median over the group's entries."""
        values = [float(row[column]) for row in self.of(group) if given(row, column)]
        return median(values) if values else None


def matrices(run: Run) -> list[Matrix]:
    """Those that were measured, controls last."""
    found: dict[tuple[int, str, int | None], Matrix] = {}
    for table in ("entries", "recovery"):
        for row in run["tables"].get(table, []):
            if not given(row, "layer", "role"):
                continue
            expert = int(row["expert"]) if given(row, "expert") else None
            key = (int(row["layer"]), str(row["projection"]), expert)
            matrix = found.setdefault(key, Matrix(*key, str(row["role"]), [], []))
            (matrix.entries if table == "entries" else matrix.recovery).append(row)
    measured = [matrix for matrix in found.values() if matrix.entries]
    return sorted(measured, key=lambda m: (m.role == "control", m.layer, m.projection, m.expert or 0))


def rows_of(run: Run, table: str) -> list[Row]:
    """Rows of a table that are no failed job's."""
    return [row for row in run["tables"].get(table, []) if row.get("status") not in {"failed", "pending"}]
