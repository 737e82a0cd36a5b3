"""Figures of attribution: both ladders, Shapley values, floors, rank correlations, losses against errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diag.declare.column import Row
from diag.probes.attribution.columns import (
    BESIDE,
    COMBINATION,
    MOBE,
    NAME,
    PREDICTORS,
    SHAPLEY,
    TDMOE,
    error_name,
)
from diag.probes.attribution.ends import (
    DAMAGE,
    SINGLE_BASIS,
    family,
    known,
    meeting,
    options,
    presets,
    published,
    reference,
    refitted,
)
from diag.statistics.medians import where
from reports.formats import counted, fixed, measured, percent
from reports.plots import Bar, Entry, Forest, Level, Mark, Panel, Plot, Scatter, Series, Waterfall
from tdmoe.numerics.gram import MODES

_ERRORS = ("weight_error", "functional_error", "functional_error_expert", "operator_error", "angle_deg")
_DENSE, _ABOVE = "dense", "nats a token above the dense model"
_OTHERS = "control"
_LEAST = 3  # points that a panel needs


def figures(tables: Mapping[str, Sequence[Row]], arrays: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    """Figures that the tables allow."""
    rows, predictors = tables.get(NAME, ()), tables.get(PREDICTORS, ())
    drawn = (ladder(rows), origin(rows), shapley(tables.get(SHAPLEY, ())), floor(rows), correlations(predictors))
    return [plot for plot in (*drawn, errors(rows, predictors)) if plot is not None]


def ladder(rows: Sequence[Row]) -> Waterfall | None:
    """Waterfall of what each change takes away, between TD-MoE as published and MoBE."""
    ours, mobe, start = where(rows, ladder=TDMOE), reference(rows), published(rows)
    if not known(ours, DAMAGE):
        return None
    whole = [*presets(rows), *(row for row in [refitted(rows)] if row is not None)]
    both = where(rows, ladder=COMBINATION)
    others = [row for row in where(rows, ladder=BESIDE) if row.get("method") != _DENSE and row not in whole]
    clear = [row for row in (start, mobe) if row is not None and known([row], "gap_closed", DAMAGE)]
    gap = (clear[0][DAMAGE], clear[1][DAMAGE]) if len(clear) == 2 else None
    groups = [
        ("TD-MoE, one change after the other", list(chain(ours, gap))),
        ("TD-MoE, the same changes combined", [_bar(row, "better") for row in both]),
        ("MoBE", [_bar(row, "mobe") for row in whole]),
        ("Others", [_bar(row) for row in others]),
    ]
    levels = [] if mobe is None or not known([mobe], DAMAGE) else [Level(mobe[DAMAGE], "MoBE", "mobe", "x")]
    shares = " Per cent and upper axis: of the gap." if gap else " The gap to MoBE is not clear: no share of it."
    return Waterfall(
        "attribution-ladder", "What each change takes away",
        "Held-out loss above the dense model's, paired by window. Grey and green: where a method stands. Blue: what a "
        "change takes away from the step above it; orange: what it adds. Thin lines: one standard error. Bars beyond "
        f"the axis are cut.{shares if mobe is not None else ''}",
        groups=[group for group in groups if group[1]], x=_ABOVE, levels=levels, gap=gap,
        most=max(row[DAMAGE] + _error(row) for row in known([*ours, *both, *whole], DAMAGE)),
        share="gap to MoBE closed, %", view="ladder",
    )  # fmt: skip


def origin(rows: Sequence[Row]) -> Waterfall | None:
    """MoBE's own ladder, and what TD-MoE does from the same level."""
    theirs, near, ours = where(rows, ladder=MOBE), meeting(rows), where(rows, ladder=TDMOE)
    if len(known(theirs, DAMAGE)) < 2:
        return None
    groups = [("MoBE, one change after the other", list(chain(theirs)))]
    if near is not None:
        groups.append(("TD-MoE, from the step of nearest errors", list(chain(ours[ours.index(near) :]))))
    return Waterfall(
        "attribution-mobe", "Where MoBE's advantage comes from",
        f"Held-out loss above the dense model's, paired by window; thin lines: one standard error. {SINGLE_BASIS}, "
        "where the ladders meet. Dotted: where MoBE's ladder starts.",
        groups=groups, x=_ABOVE, levels=[Level(row[DAMAGE], axis="x") for row in known(theirs[:1], DAMAGE)],
        view="mobe",
    )  # fmt: skip


def chain(rows: Sequence[Row], gap: tuple[float, float] | None = None) -> Iterator[Bar]:
    """A ladder as bars: the first step whole, each other from the one before, with its change and share of the gap.

    After a step that was not measured the next one stands whole, since what it changed is not known; so does MoBE's
    published preset, which is trained in another way and no further step.
    """
    before: Row | None = None
    for row in rows:
        here = bool(known([row], DAMAGE))
        if here and before is not None and options(row).get("preset") != "published":
            change = float(row[DAMAGE] - before[DAMAGE])
            share = f" · {percent(-change / (gap[0] - gap[1]))}" if gap else ""
            name = "better" if change <= 0 else "worse"
            yield _bar(row, name, before[DAMAGE], f"{measured(change, 'change')}{share}")
        else:
            yield _bar(row)
        before = row if here else None


def _bar(row: Row, name: str = "level", start: float | None = None, note: str = "") -> Bar:
    title = str(row.get("step"))
    if row.get("ladder") == COMBINATION:
        title = title.partition(":")[0]  # without what it consists of
    if not known([row], DAMAGE):
        return Bar(title, None, note=measured(row.get("status") or "not_measured"))
    return Bar(title, row[DAMAGE], start, note or fixed(row[DAMAGE], 3), _error(row), name)


def _error(row: Row) -> float:
    return float(row.get(f"{DAMAGE}_stderr") or 0.0)


def shapley(rows: Sequence[Row]) -> Forest | None:
    """Every change's value, the largest first, with what it takes away as the first and the last one."""
    found = sorted(known(rows, "nats"), key=lambda row: -float(row["nats"]))
    entries = []
    for row in found:
        ends = {"as the first": row.get("alone_nats"), "as the last": row.get("last_nats")}
        marks = [Mark(value, name, hollow=True) for name, value in ends.items() if value is not None]
        label = "Shapley value, 95 % interval"
        marks.append(Mark(row["nats"], label=label, low=row.get("nats_low"), high=row.get("nats_high")))
        note = [measured(row[c], form) for c, form in (("nats", "loss"), ("gap_share", "percent")) if known([row], c)]
        entries.append(Entry(str(row.get("text") or row.get("switch")), marks, "\n".join(note)))
    return None if not found else Forest(
        "attribution-shapley", "Each change, averaged over orders",
        "Loss that each change takes away, averaged over the orders in which changes can be switched on (Shapley "
        "value), beside what it takes away as the first and as the last one; left of 0 it does harm. At the right the "
        "value and its share of the gap to MoBE.",
        groups=[("", entries)], x="nats a token taken away", levels=[Level(0.0, axis="x")], view="shapley",
    )  # fmt: skip


def floor(rows: Sequence[Row]) -> Forest | None:
    """Functional error of every step beside what cutting each of its modes alone costs."""
    found, mobe = known(rows, "floor"), reference(rows)
    entries = []
    for row in found:
        cut = [(mode, row.get(f"mode_error_{mode}")) for mode in MODES]
        marks = [Mark(value, mode, f"cutting the {mode} mode alone") for mode, value in cut if value]
        own = [Mark(row["functional_error"], label="the step", hollow=True)] if known([row], "functional_error") else []
        entries.append(Entry(str(row.get("step")).partition(":")[0], [*marks, *own]))
    levels = [] if mobe is None else known([mobe], "functional_error")
    return None if not found else Forest(
        "attribution-floor", "What the ranks alone cost",
        "Relative functional error (pooled inputs) of each step of TD-MoE, and of cutting each mode alone to its "
        "ranks. The largest of the three is a floor: no Tucker decomposition of these ranks is below. Between floor "
        "and step is what the other modes, the metric and the solver cost, or that another error was made least.",
        groups=[("", entries)], x="relative functional error", view="floor",
        levels=[Level(row["functional_error"], "MoBE", "mobe", "x") for row in levels],
    )  # fmt: skip


def correlations(rows: Sequence[Row]) -> Forest | None:
    """Rank correlation of every error with the loss, the strongest first."""
    found = sorted(known(rows, "rank_correlation"), key=lambda row: -float(row["rank_correlation"]))
    entries = [
        Entry(
            error_name(row),
            [Mark(row["rank_correlation"], label="", low=row.get("low"), high=row.get("high"))],
            _said(row),
        )
        for row in found
    ]
    return None if not found else Forest(
        "attribution-predictors", "Which error predicts the loss",
        "Rank correlation of each error with the loss above the dense model's over the compressed models, with 95 % "
        "intervals. An error that orders the models as the loss does has 1; one that says nothing, 0.",
        groups=[("", entries)], x="rank correlation with the loss", view="predictors",
        levels=[Level(0.0, axis="x"), Level(1.0, axis="x")],
    )  # fmt: skip


def _said(row: Row) -> str:
    ends = {"low": row.get("low"), "high": row.get("high")}
    return measured(row["rank_correlation"], "factor", **ends).replace(" (", "\n(")


def errors(rows: Sequence[Row], predictors: Sequence[Row]) -> Scatter | None:
    """The loss above dense against each error, over all projections that any model compresses."""
    compressed = known(rows, DAMAGE)
    shown = [row for row in compressed if row[DAMAGE] > 0]
    most, panels = max(map(_projections, compressed), default=1), []
    for error in _ERRORS:
        points: dict[str, list[tuple[float, float]]] = {TDMOE: [], MOBE: [], _OTHERS: []}
        for row in known(shown, error):
            share = 1.0 if error == "angle_deg" else _projections(row) / most
            if row[error] > 0:
                name = family(row) if family(row) in points else _OTHERS
                points[name].append((share * row[error], row[DAMAGE]))
        if sum(map(len, points.values())) < _LEAST:
            continue
        found = [row for row in known(predictors, "rank_correlation") if row["error"] == error]
        note = measured(found[0]["rank_correlation"], "factor") if found else ""
        lines = [
            Series([x for x, _ in ours], [y for _, y in ours], name, "others" if name == _OTHERS else None, "none")
            for name, ours in points.items() if ours
        ]  # fmt: skip
        panels.append(Panel(error_name({"error": error}), lines, note=note))
    hidden = len(compressed) - len(shown)
    return None if not panels else Scatter(
        "attribution-errors", "Loss against each error",
        "A symbol a model; at the right above each panel the rank correlation. The closer to one rising line, the "
        "better an error predicts. Errors are means over all projections that any of the models compresses."
        + (f" {counted(hidden, 'model')} without added loss cannot be shown." if hidden else ""),
        panels=panels, x="error (angle in degrees)", y="nats above dense", log="xy", same="y", columns=2, view="errors",
    )  # fmt: skip


def _projections(row: Row) -> int:
    return len(str(row.get("projections") or "one").split(","))
