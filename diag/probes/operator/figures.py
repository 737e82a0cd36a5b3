"""Figures of operator errors: over storage, against their bounds, and growth of the bound with the width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diag.declare.column import Row
from diag.probes.operator.columns import bounded, points
from diag.statistics.medians import given, over, where
from reports.plots import Panel, Panels, Plot, Scatter, Series
from reports.theme import order, title
from tdmoe.numerics.gram import MODES

_STYLES = ("solid", "dotted", "dashed")  # methods at equal storage, equal fractions of all ranks, one mode truncated


def figures(tables: Mapping[str, Sequence[Row]], arrays: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    """Figures that the tables allow."""
    rows = tables.get("operator", ())
    drawn = (storage(points(rows)), bounds(bounded(rows)), growth(tables.get("growth", ())))
    return [plot for plot in drawn if plot is not None]


def storage(found: Sequence[Row]) -> Panels | None:
    """Errors over the share of bits kept, a line a method."""
    lines: dict[tuple[str, str], list[Row]] = {}
    for point in sorted(found, key=lambda p: p["kept_ratio"]):
        grid = not point["at_storage"] and point["method"] != "svd"
        style = "dashed" if point["method"].startswith("truncate") else "dotted" if grid else "solid"
        lines.setdefault((style, point["method"]), []).append(point)
    panels = [
        Panel(name, [
            Series([p["kept_ratio"] for p in ours], [p[column] for p in ours], method,
                   f"{title(method)}, equal fractions" if style == "dotted" else None, style)
            for (style, method), ours in sorted(lines.items(), key=lambda item: _STYLES.index(item[0][0]))
        ])
        for column, name in (("operator_error", "operator error"), ("weight_error", "weight (Frobenius) error"))
    ]  # fmt: skip
    return None if not lines else Panels(
        "operator-storage", "Operator and Frobenius error over storage",
        "Means over stacks, relative to the dense norms. Above: the spectral norm of what an expert's matrix loses, "
        "mean over experts. Below: the Frobenius norm of what the stack loses. Solid: methods at equal storage; "
        "dotted: all three modes at the same fraction of their rank; dashed: one mode truncated.",
        panels=panels, x="stored bits, of the dense stack's", y="error", zero="y", percent="x", view="storage",
    )  # fmt: skip


def bounds(rows: Sequence[Row]) -> Scatter | None:
    """Measured operator error over the least of the rank against both bounds."""
    panels = [
        Panel(f"bound: {name}", [
            Series([r[column] for r in ours], [r["operator_over_optimal"] for r in ours], mode, line="none")
            for mode in MODES if (ours := where(rows, mode=mode))
        ])
        for column, name in (("bound_paper", "Corollary 1 (paper)"), ("bound_proven", "proven"))
    ]  # fmt: skip
    return None if not rows else Scatter(
        "operator-bounds", "Measured operator error and its bounds",
        "Every unfolding of every Tucker truncation that cuts it: its operator error over sigma of k + 1, the least "
        "that rank k can leave, against the bound on it. Points below the line keep the bound; the further below, the "
        "looser it is.",
        panels=panels, x="bound (both over the least error of the rank)", y="measured", log="xy", diagonal="equal",
        view="bounds",
    )  # fmt: skip


def growth(rows: Sequence[Row]) -> Panels | None:
    """The bound over the width of a mode, with the slope that alpha predicts through the widest point."""
    found = given(rows, "width", "bound", "slope_predicted")
    lines = []
    for mode in MODES:
        for projection in sorted({row["projection"] for row in found}, key=order):
            ours = where(found, mode=mode, projection=projection)
            widths = sorted({row["width"] for row in ours})
            if not widths:
                continue
            heights = [over(where(ours, width=width), "bound") or 0.0 for width in widths]
            slope = over(ours, "slope_predicted") or 0.0
            lines.append(Series(widths, heights, mode, f"{mode}, {projection}", mark=projection))
            predicted = [heights[-1] * (width / widths[-1]) ** slope for width in widths]
            lines.append(Series(widths, predicted, mode, "", "dashed", "no"))
    return None if not lines else Panels(
        "operator-growth", "Growth of Corollary 1's bound with the width",
        "The bound at a fixed rank on nested random parts of the stack, means over layers; alpha is fitted anew at "
        "every width. Dashed: the slope that the mean alpha predicts, 1/2 less alpha, through the widest point.",
        panels=[Panel("", lines)], x="width of the mode", y="Corollary 1's bound", log="xy", view="growth",
    )  # fmt: skip
