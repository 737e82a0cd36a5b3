"""The tables of `superweights`, the matrices whose entries were followed, and how people read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diag.declare.column import Column, Columns, Row, View
from diag.declare.common_columns import COMMON, common
from diag.statistics.medians import given, groups, middle, where

NAME = "superweights"
VERSION = 2
GROUPS = ("superweight", "top_magnitude", "activation_weighted", "random_inlier")
ROLES = {"superweight": "with a super weight", "strongest_spike": "strongest spike", "control": "control"}
_SHARES = (0.25, 0.5, 0.75, 0.9, 1.0)
_FROM = "stays recovered from rank on"

_PLACE = common("layer", "projection", "expert")
_ROLE = Column("role", "why the matrix was followed", form="method")
_GROUP = Column("group", "group of entries", form="method")
_ENTRY = [
    Column("row", "row of the matrix, an output", form="integer"),
    Column("column", "column of the matrix, an input", form="integer"),
    Column("value", "the weight", "weight", form="norm"),
]
_INPUT = Column("input_activation", "largest input", "input")
_OUTPUT = Column("output_activation", "largest output", "output")
_SPIKE = [
    Column("input_ratio", "its magnitude over the median in its window", "times the median", form="integer"),
    Column("output_ratio", "the same of the output", "times the median", form="integer"),
    Column("output_share", "share of the output that this weight makes", "share of the output", form="percent"),
    Column("source", "prompt or text, where it was seen", "seen in", form="text"),
    Column("token", "place of the token in its window", form="integer"),
]  # fmt: skip
_TOKENS = COMMON["tokens"].but(meaning="tokens that were searched")

TABLES = {
    "superweights": Columns(
        *(*_PLACE, *_ENTRY, _INPUT, _OUTPUT, _TOKENS, *common("status"), *_SPIKE),
        Column("published", "whether it is in the list of the paper, where that has the model", form="text"),
    ),
    "recovery": Columns(
        *_PLACE, COMMON["method"].but(meaning="svd (a truncation, where ratio is empty) or the spec of a method"),
        _GROUP, *common("rank", "stored_bits"),
        Column("recovered_fraction", "share of the group that is recovered", "recovered", form="percent"),
        Column("stays_recovered_fraction", "share that is so there and at every higher rank or storage",
               "stays recovered", form="percent"),
        Column("entries", "entries of the group", form="integer"),
        *common("status", "kept_ratio", "ratio"),
        _ROLE,
        Column("calibration", "what the method was calibrated on", form="text"),
        *common("variant"),
    ),
    "entries": Columns(
        *(*_PLACE, _ROLE, _GROUP, *_ENTRY),
        Column("first_rank", "lowest rank of a truncated SVD that recovers it", "recovered first at rank",
               form="integer"),
        Column("stays_from_rank", "rank from which on it stays recovered", form="integer"),
        Column("dominant_component", "index of the component that is largest there", form="integer"),
        Column("dominant_share", "its share of the magnitudes of all components", "its share", form="percent"),
        Column("half_rank", "rank at which half of these magnitudes are summed", "half of the magnitude by rank",
               form="integer"),
        Column("full_rank", "full rank of the matrix", form="integer"),
        Column("outputs", "rows of the matrix", form="integer"),
        Column("inputs", "columns of the matrix", form="integer"),
        *common("status"),
    ),
    "spikes": Columns(
        *(*_PLACE, *_ENTRY, _INPUT, _OUTPUT, *_SPIKE, _TOKENS),
        Column("same_token", "whether input and output are of one token", "at one token", form="text"),
        Column("threshold", "that both have to exceed"),
        *common("status"),
    ),
    "ablation": Columns(
        *_PLACE, _GROUP.but(label="zeroed", meaning="what was set to zero; dense: nothing"),
        Column("draw", "draw of random weights", form="integer"),
        Column("zeroed", "weights set to zero", "weights", form="integer"),
        Column("loss", "mean next-token loss", unit="nats", form="loss", error="loss_stderr"),
        Column("loss_stderr", "its standard error over windows"),
        Column("loss_change", "loss less that of the dense model, in pairs over windows", unit="nats", form="change",
               error="loss_change_stderr"),
        Column("loss_change_stderr", "its standard error over windows"),
        Column("perplexity", "exponential of the loss", form="perplexity", error="perplexity_stderr"),
        Column("perplexity_stderr", "its standard error"),
        Column("text", "text of the evaluation", form="text"),
        Column("windows", "windows of it", form="integer"),
        Column("window", "tokens of a window", form="integer"),
        *common("status"),
    ),
}  # fmt: skip

_MATRIX = Column("matrix", "the down projection", form="text")
_WEIGHT = Column("where", "matrix, row and column of the weight", form="text")
_OVER_RANK = [
    _MATRIX, _GROUP,
    Column("entries", "entries of the group", form="integer"),
    Column("full_rank", "full rank of the matrix", form="integer"),
    *(Column(f"rank_{share}", f"rank from which on {share:.0%} of the group stays recovered", f"{100 * share:g} %",
             form="integer", group=_FROM) for share in _SHARES),
    Column("lost", "entries that are lost again at a rank", "lost again at a rank", form="integer"),
    *(COLUMN.but(group="median of the group", form=form) for COLUMN, form in zip(
        TABLES["entries"].pick("dominant_component", "dominant_share", "half_rank"),
        ("dimension", "percent", "dimension"), strict=True)),
]  # fmt: skip
_PLACES = [
    *(_MATRIX, _GROUP),
    *(Column(name, meaning, label, form="integer") for name, meaning, label in (
        ("entries", "entries of the group", ""), ("rows", "rows that hold one", ""),
        ("row", "row that holds most", "fullest row"), ("of_row", "entries in it", "entries there"),
        ("columns", "columns that hold one", ""), ("column", "column that holds most", "fullest column"),
        ("of_column", "entries in it", "entries there"))),
]  # fmt: skip


@dataclass(frozen=True)
class Matrix:
    """One down projection whose entries were followed: its rows of `entries` and of `recovery`."""

    layer: int
    projection: str
    expert: int | None
    role: str
    entries: Sequence[Row]
    recovery: Sequence[Row]

    @property
    def name(self) -> str:
        """Place of the row in words."""
        return place(vars(self))

    @property
    def title(self) -> str:
        """Place and role."""
        return f"{self.name} ({ROLES.get(self.role, self.role)})"

    @property
    def labels(self) -> dict[str, Any]:
        """The columns that tell it apart."""
        return {key: getattr(self, key) for key in ("layer", "projection", "expert", "role")}

    @property
    def full_rank(self) -> int:
        return int(self.entries[0]["full_rank"])

    @property
    def dense_rank(self) -> float:
        """The rank at which two factors store as much as the matrix."""
        outputs, inputs = int(self.entries[0]["outputs"]), int(self.entries[0]["inputs"])
        return outputs * inputs / (outputs + inputs)

    @property
    def groups(self) -> dict[str, list[Row]]:
        """The entries of every group that has some."""
        return groups(self.entries, "group", GROUPS)

    @property
    def families(self) -> dict[str, list[str]]:
        """{family: its specs} of the methods, in the order measured."""
        specs = dict.fromkeys(str(row["method"]) for row in self.recovery if row["method"] != "svd")
        rows = groups([{"family": spec.partition(":")[0], "spec": spec} for spec in specs], "family")
        return {family: [row["spec"] for row in ours] for family, ours in rows.items()}

    def curve(self, group: str, *methods: str) -> list[Row]:
        """Rows of recovery of a group in rising storage; of the SVD at all ranks without `methods`."""
        ours = given(where(self.recovery, group=group), "recovered_fraction")
        shown = [row for row in ours if row["method"] in methods] if methods else truncated(ours)
        return sorted(shown, key=lambda row: float(row["stored_bits"]))

    def rank_for(self, group: str, share: float) -> int:
        """The smallest rank from which on this share of the group stays recovered."""
        ranks = sorted(int(row["stays_from_rank"]) for row in self.groups[group])
        return ranks[max(0, -int(-share * len(ranks) // 1) - 1)]


def matrices(tables: Mapping[str, Sequence[Row]]) -> list[Matrix]:
    """Matrices that were measured, controls last."""
    keys = ("layer", "projection", "expert", "role")
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for table in ("entries", "recovery"):
        for row in given(tables.get(table, ()), "layer", "role"):
            found.setdefault(tuple(row.get(key) for key in keys), {"entries": [], "recovery": []})[table].append(row)
    measured = [Matrix(**dict(zip(keys, key, strict=True)), **rows) for key, rows in found.items() if rows["entries"]]
    return sorted(measured, key=lambda m: (m.role == "control", m.layer, m.projection, m.expert or 0))


def truncated(rows: Sequence[Row]) -> list[Row]:
    """Rows of the SVD at every rank; `svd` is also the name of a method, which has a ratio."""
    return [row for row in rows if row["method"] == "svd" and row.get("ratio") is None]


def place(row: Row) -> str:
    """`layer 3 down expert 26`; nothing where weights of several matrices are meant."""
    expert = "" if row.get("expert") is None else f" expert {row['expert']}"
    return "" if row.get("layer") is None else f"layer {row['layer']} {row['projection']}{expert}"


def spot(row: Row) -> str:
    """`layer 3 down expert 26 [140, 30]`."""
    return f"{place(row)} [{row['row']}, {row['column']}]" if place(row) else ""


def views(tables: Mapping[str, Sequence[Row]]) -> list[View]:
    """Super weights; spikes; recovery over rank and storage; ablation; positions; every entry."""
    spike = ("value", "input_activation", "input_ratio", "output_activation", "output_ratio", "output_share", "source")
    point = [_MATRIX, *TABLES["recovery"].pick("method", "ratio", "rank", "kept_ratio")]
    listed, made = matrices(tables), _placed(given(tables.get("recovery", ()), "method"))
    seen = View(
        "spikes",
        "Activation spikes",
        "Strongest spike of every layer, before any weight was zeroed",
        [_WEIGHT, *TABLES["spikes"].pick(*spike, "same_token")],
        _placed(tables.get("spikes", ())),
        folded=True,
    )
    found = View("found", "Super weights", "Super weights",
                 [_WEIGHT, *TABLES["superweights"].pick(*spike, "published", "status")],
                 _placed(given(tables.get("superweights", ()), "layer")))  # fmt: skip
    return [
        *((found, seen) if found.rows or not seen.rows else (seen,)),
        View("recovery", "Recovery against rank", "Ranks of a truncated SVD that recover a group of entries, exact",
             _OVER_RANK, [_over_rank(matrix, name) for matrix in listed for name in matrix.groups], folded=True),
        View("methods", "Recovery against storage", "Share of every group that a method recovers",
             [*point, *TABLES["recovery"].pick("group", "recovered_fraction")],
             [row for row in made if row not in truncated(made)], [column.name for column in point], "group",
             folded=True),
        View("ablation", "Ablation", "Loss and perplexity with weights set to zero",
             [*TABLES["ablation"].pick("group", "draw", "zeroed"), _MATRIX,
              *TABLES["ablation"].pick("loss_change", "loss_change_stderr", "perplexity", "perplexity_stderr")],
             _placed(tables.get("ablation", ())), folded=True),
        View("positions", "Positions of the entries", "Rows and columns that hold the entries", _PLACES,
             [_places(matrix, name) for matrix in listed for name in matrix.groups], folded=True),
        View("entries", "Tracked entries", "Tracked entries, matrix by matrix",
             [_MATRIX, *TABLES["entries"].pick(
                 "group", "row", "column", "value", "first_rank", "stays_from_rank", "dominant_component",
                 "dominant_share", "half_rank")],
             _placed([row for matrix in listed for row in matrix.entries]), folded=True),
    ]  # fmt: skip


def _placed(rows: Sequence[Row]) -> list[Row]:
    """Rows with their matrix and, of a single weight, its place in words."""
    return [row | {"matrix": place(row), "where": spot(row) if row.get("row") is not None else None}
            for row in map(dict, rows)]  # fmt: skip


def _over_rank(matrix: Matrix, group: str) -> Row:
    rows = matrix.groups[group]
    return {
        "matrix": matrix.title, "group": group, "entries": len(rows), "full_rank": matrix.full_rank,
        **{f"rank_{share}": matrix.rank_for(group, share) for share in _SHARES},
        "lost": sum(int(row["first_rank"]) < int(row["stays_from_rank"]) for row in rows),
        **{column: middle(rows, column) for column in ("dominant_component", "dominant_share", "half_rank")},
    }  # fmt: skip


def _places(matrix: Matrix, group: str) -> Row:
    rows = matrix.groups[group]
    found: dict[str, Any] = {"matrix": matrix.title, "group": group, "entries": len(rows)}
    for side in ("row", "column"):
        counts = Counter(int(row[side]) for row in rows)
        ((most, times),) = counts.most_common(1)
        found |= {f"{side}s": len(counts), side: most, f"of_{side}": times}
    return found
