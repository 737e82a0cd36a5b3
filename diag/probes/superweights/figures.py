"""Figures of super weights: spikes by layer, recovery over rank and storage, positions, and the loss without them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diag.declare.column import Row
from diag.probes.superweights.claims import interval_of, zeroed
from diag.probes.superweights.columns import Matrix, matrices, place
from diag.statistics.medians import given, where
from reports.plots import Entry, Forest, Level, Mark, Panel, Panels, Plot, Scatter, Series
from reports.theme import title

_MOST = 6  # panels of a figure
_ROOM = 1.3  # times the dense storage, up to which recovery is drawn
_SIZE = 0.2  # of the largest weight's marker


def figures(tables: Mapping[str, Sequence[Row]], arrays: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    """Figures that the tables allow."""
    listed, found = matrices(tables), list[Plot]()
    if rows := given(tables.get("spikes", ()), "input_activation", "output_activation"):
        found.append(spikes(rows))
    if listed:
        found += [recovery(listed[:_MOST]), positions(listed[:_MOST])]
        if listed[0].families:
            found.append(methods(listed[0]))
    if rows := given(tables.get("ablation", ()), "group", "loss_change"):
        found.append(ablation(rows))
    return found


def spikes(rows: Sequence[Row]) -> Panels:
    """Largest input and output by layer, with the threshold."""
    layers, threshold = [row["layer"] for row in rows], float(rows[0]["threshold"])
    lines = [
        Series(layers, [abs(float(row[f"{end}_activation"])) for row in rows], end, f"largest {end}")
        for end in ("input", "output")
    ]
    return Panels(
        "superweights-spikes", "Activation spikes",
        "Largest input and output magnitude of the down projection that spikes most in each layer, before any weight "
        "was zeroed. A super weight needs both above the threshold at one token.",
        panels=[Panel("", lines, [Level(threshold, f"threshold {threshold:g}")])], x="layer", y="magnitude", log="y",
        whole="x", view="spikes",
    )  # fmt: skip


def recovery(listed: Sequence[Matrix]) -> Panels:
    """Share of each group that is recovered over the rank of an SVD, a panel a matrix."""
    panels = [
        Panel(matrix.title, list(_over_rank(matrix)), [Level(matrix.dense_rank, "as large as dense", axis="x")],
              note=f"full rank {matrix.full_rank}")
        for matrix in listed
    ]  # fmt: skip
    return Panels(
        "superweights-recovery", "Recovery against rank",
        "Share of tracked entries whose estimate is within 5 % of the weight (or 10⁻⁶) against the rank of a truncated "
        "SVD. Thick with markers: stays so at every higher rank; thin: at this rank. Right of the dotted line two "
        "factors of this rank are larger than the dense matrix.",
        panels=panels, x="rank of the truncated SVD", y="share recovered", zero="xy", percent="y", whole="x",
        same="y", view="recovery",
    )  # fmt: skip


def _over_rank(matrix: Matrix) -> Iterator[Series]:
    for group in matrix.groups:
        if rows := matrix.curve(group):
            ranks = [int(row["rank"]) for row in rows]
            line = "steps" if group == "superweight" else "solid"
            yield Series(ranks, [row["recovered_fraction"] for row in rows], group, "", "thin")
            yield Series(ranks, [row["stays_recovered_fraction"] for row in rows], group, None, line)


def methods(matrix: Matrix) -> Panels:
    """Share of each group recovered against storage, a panel a group, a line a family of methods."""
    panels = []
    for group, rows in matrix.groups.items():
        cheap = [row for row in matrix.curve(group) if float(row["kept_ratio"]) <= _ROOM]
        lines = [_stored(cheap, "svd", "truncated SVD", "no")]
        lines += [_stored(matrix.curve(group, *specs), family) for family, specs in matrix.families.items()]
        panels.append(Panel(title(group), lines, [Level(1.0, axis="x")], note=f"{len(rows)} entries"))
    return Panels(
        "superweights-methods", f"Recovery against storage, {matrix.name}",
        "Share of tracked entries that are recovered at this storage, by method; a higher one may lose some again. "
        "Storage is that of the whole stack of experts over its dense storage; one is the dotted line.",
        panels=panels, x="stored bits over those of the dense stack", y="share recovered", zero="xy", percent="xy",
        view="methods",
    )  # fmt: skip


def _stored(rows: Sequence[Row], name: str, label: str | None = None, mark: str = "yes") -> Series:
    x, y = ([float(row[column]) for row in rows] for column in ("kept_ratio", "recovered_fraction"))
    return Series(x, y, name, label, mark=mark)


def positions(listed: Sequence[Matrix]) -> Scatter:
    """Places of the entries of each group in the matrix, a panel a matrix."""
    panels = []
    for matrix in listed:
        largest = max(abs(float(row["value"])) for row in matrix.entries) or 1.0
        shown = [
            Series([row["column"] for row in rows], [row["row"] for row in rows], group, line="none",
                   sizes=[_SIZE * abs(float(row["value"])) / largest for row in rows],
                   fill="full" if group in ("superweight", "random_inlier") else "none")
            for group, rows in reversed(matrix.groups.items())
        ]  # fmt: skip
        shape = f"{matrix.entries[0]['outputs']} × {matrix.entries[0]['inputs']}"
        panels.append(Panel(matrix.title, shown, note=shape))
    return Scatter(
        "superweights-positions", "Positions of the entries",
        "Tracked entries in their matrix; the larger the marker, the larger the weight's magnitude.",
        panels=panels, x="input (column)", y="output (row)", zero="xy", whole="xy", same="", down=True,
        view="positions",
    )  # fmt: skip


def ablation(rows: Sequence[Row]) -> Forest:
    """Change of the loss for each group that was zeroed, beside each draw of as many random weights."""
    lines: dict[str, list[Entry]] = {}
    for row in rows:
        if row["group"] not in ("random", "random_mean"):
            same = {key: row.get(key) for key in ("layer", "projection", "expert", "zeroed")}
            change = interval_of(row, "loss_change")
            marks = [Mark(draw["loss_change"], "random", "random draws", hollow=True)
                     for draw in where(rows, group="random", **same)]  # fmt: skip
            marks.append(Mark(row["loss_change"], "value", "zeroed, 95 % interval", change.low, change.high))
            lines.setdefault(place(row), []).append(Entry(zeroed(row), marks))
    return Forest(
        "superweights-ablation", "Zeroing weights",
        "Change of the mean next-token loss when weights are set to zero, in pairs over the same windows. Grey: each "
        "draw of as many random weights of the same matrices.",
        groups=list(lines.items()), x="change of the loss (nats a token)",
        levels=[Level(0.0, axis="x")], view="ablation",
    )  # fmt: skip
