"""The tables of `injection`, and how people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from diag.declare.column import Column, Columns, Row, View
from diag.declare.common_columns import COMMON, common
from diag.statistics.medians import given, where

NAME, CONTRASTS = "injection", "injection_contrasts"
ERRORS = ("weight_error", "functional_error", "operator_error")
PER_EXPERT = "functional_error_expert"
DRAWN = ("isotropic", "flat", "rank_one", "along", "against")
_LOW, _HIGH, _RATIO = "lower end of its 95 % interval", "upper end of it", "ratio of"
_DESIGN = Column("design", "norm that is held equal: frobenius, operator or functional", "equal norm", form="text")
_SCOPE = Column("scope", "all: every chosen layer at once; one: a layer alone", form="text")
_SIZE = Column("size", "that norm of the residual over the weights'")

TABLES = {
    NAME: Columns(
        _DESIGN,
        Column("family", "family of drawn residuals, or the method that left this one", form="method"),
        _SCOPE,
        *common("layer", "projection"),
        _SIZE,
        Column("seed", "draw of the family; empty for a method", "draw", form="integer"),
        *(column.but(form="") for column in common(*ERRORS[:2], PER_EXPERT, ERRORS[2])),
        Column("loss_change", "increase of the mean held-out cross-entropy", "loss increase", "nats",
               error="loss_change_stderr"),
        Column("loss_change_stderr", "standard error of it, paired by window", form="rough"),
        *common("tokens", "status"),
        Column("loss_change_odd", "half the difference of adding the residual and taking it away", unit="nats"),
        Column("loss_dense", "loss of the unchanged model", unit="nats", form="loss"),
    ),
    CONTRASTS: Columns(
        Column("statistic", "spearman, exponent, r2_difference, within, joint, ratio or excess", form="text"),
        _SCOPE,
        *common("layer", "projection"),
        _DESIGN,
        Column("families", "families compared, or the method", form="method"),
        _SIZE,
        Column("error", "error that predicts", form="text"),
        Column("value", "the statistic", low="low", high="high"),
        Column("low", _LOW),
        Column("high", _HIGH),
        Column("count", "kinds of residual, or runs, that it is of", "points", form="integer"),
        Column("left_out", "kinds that did not clearly increase the loss", form="integer"),
        Column("r2", "share of the variance of the log response that the law explains", "R²", form="exponent"),
        *(Column(f"{error}_ratio", f"{error} of the first family over that of the second", error.replace("_", " "),
                 group=_RATIO) for error in ERRORS),
        *common("status"),
        Column("other_error", "error that it is compared with", form="text"),
    ),
}  # fmt: skip
_CONTRASTS = TABLES[CONTRASTS]
_SITE = Column("site", "what was injected into at once", "injected into", form="text")
_PAIR = Column("pair", "first family over second", form="text")
_LAWS = [
    _SITE, *_CONTRASTS.pick("error"),
    Column("rank", "Spearman's rank correlation with the response over all runs", "rank correlation", form="factor",
           low="rank_low", high="rank_high"),
    Column("rank_low", _LOW), Column("rank_high", _HIGH),
    Column("value", "exponent of the response as a power of this error", "exponent alone", form="factor", low="low",
           high="high"),
    *_CONTRASTS.pick("low", "high"), _CONTRASTS.described["r2"].but(label="R² alone"),
    Column("joint", "exponent of it with the other errors held fixed", "exponent together", form="factor",
           low="joint_low", high="joint_high"),
    Column("joint_low", _LOW), Column("joint_high", _HIGH), *_CONTRASTS.pick("count", "left_out"),
]  # fmt: skip
_POINTS = [
    _SITE, *TABLES[NAME].pick("family", "design", "size", *ERRORS, PER_EXPERT),
    Column("loss_change", "mean increase of the loss over draws", "loss increase", "nats"),
    Column("least", "least of the draws", unit="nats"), Column("largest", "largest of the draws", unit="nats"),
    Column("draws", "draws in the mean", form="integer"), *common("status"),
]  # fmt: skip


def views(tables: Mapping[str, Sequence[Row]]) -> list[View]:
    """Laws of every site; pairs of families; laws at one norm; what methods leave; every point."""
    rows = [{**row, "site": site(row), "pair": pair(row)} for row in tables.get(CONTRASTS, ())]
    parts = tables.get(NAME, ())
    unmeasured = [{**row, "site": site(row)} for row in parts if row.get("loss_change") is None]
    return [
        View("laws", "Which error predicts the loss that drawn residuals add", "Laws of the response to residuals, 95 "
             "% intervals; of compressed models attribution measures it", _LAWS, laws(rows)),
        View("pairs", "Pairs that differ in one error", "Two families at the same norm and size: ratios of their "
             "errors and of the loss that they add",
             [_SITE, _PAIR, *_CONTRASTS.pick("design", "size", *(f"{e}_ratio" for e in ERRORS)),
              _CONTRASTS.described["value"].but(label="loss increase", group=_RATIO),
              *_CONTRASTS.pick("low", "high")], where(rows, statistic="ratio"), folded=True),
        View("within", "Exponents at one norm held equal", "Exponents across families while a norm is held, every size "
             "on its own level",
             [_SITE, *_CONTRASTS.pick("design", "error"),
              _CONTRASTS.described["value"].but(label="exponent", form="factor"),
              *_CONTRASTS.pick("low", "high", "r2", "count", "left_out", "status")], where(rows, statistic="within"),
             folded=True),
        View("methods", "What methods leave", "Loss that a method's residual adds over that of drawn residuals of the "
             "same error", [_SITE, *_CONTRASTS.pick("families", "error"),
                            _CONTRASTS.described["value"].but(label="times the drawn"),
                            *_CONTRASTS.pick("low", "high", "count", "status")], where(rows, statistic="excess"),
             folded=True),
        View("points", "Every kind of residual", "Relative errors and loss increase, means over draws", _POINTS,
             [*points(parts), *unmeasured], folded=True),
    ]  # fmt: skip


def site(row: Row) -> str:
    """`gate, up of all layers`, `up of layer 3 alone`."""
    layer = row.get("layer")
    return f"{str(row['projection']).replace(',', ', ')} of {'all layers' if layer is None else f'layer {layer} alone'}"


def pair(row: Row) -> str:
    """`rank one over flat`."""
    return str(row.get("families") or "").replace("/", " over ").replace("_", " ")


def compared(row: Row) -> str:
    """`rank one over flat, equal Frobenius norm`."""
    return f"{pair(row)}, equal {str(row['design']).replace('frobenius', 'Frobenius')} norm"


def error_name(error: object) -> str:
    """An error in a reader's words."""
    known = COMMON.get(str(error))
    return str(error) if known is None else known.heading


def sites(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by site: all layers first, all projections before one."""

    def place(row: Row) -> tuple[Any, ...]:
        layer, projection = row.get("layer"), str(row["projection"])
        return layer is not None, layer or 0, -projection.count(","), projection

    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=place):
        found.setdefault(site(row), []).append(row)
    return found


def laws(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every site and error: rank correlation, law alone, exponent together."""
    found = []
    for name, ours in sites(given(rows, "value")).items():
        for error in (*ERRORS, PER_EXPERT):
            kinds = {row["statistic"]: row for row in where(ours, error=error) if row.get("design") is None}
            alone, rank, joint = (kinds.get(kind, {}) for kind in ("exponent", "spearman", "joint"))
            if alone or rank:
                law = {column: alone.get(column) for column in ("value", "low", "high", "r2", "count", "left_out")}
                law |= {"site": name, "error": error_name(error)}
                for key, row in (("rank", rank), ("joint", joint)):
                    law |= {key: row.get("value"), f"{key}_low": row.get("low"), f"{key}_high": row.get("high")}
                found.append(law)
    return found


def points(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A row a site, family, design and size: means over its draws, drawn families first."""
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for name, ours in sites(given(rows, "loss_change", "size")).items():
        for row in sorted(ours, key=_place):
            cells.setdefault((name, row["family"], row["design"], row["size"]), []).append(row)
    return [
        dict(zip(("site", "family", "design", "size"), key, strict=True))
        | {error: _mean(ours, error) for error in (*ERRORS, PER_EXPERT, "loss_change")}
        | {"least": min(row["loss_change"] for row in ours), "largest": max(row["loss_change"] for row in ours)}
        | {"layer": ours[0].get("layer"), "projection": ours[0]["projection"], "draws": len(ours), "status": "ok",
           "responses": [row["loss_change"] for row in ours]}
        for key, ours in cells.items()
    ]  # fmt: skip


def _place(row: Row) -> tuple[Any, ...]:
    family = str(row["family"])
    number = DRAWN.index(family) if family in DRAWN else len(DRAWN)
    return str(row["design"]), number, family, row["size"]


def _mean(rows: Sequence[Row], column: str) -> float | None:
    values = [float(row[column]) for row in given(rows, column)]
    return fmean(values) if values else None


def ratios(rows: Sequence[Row]) -> list[Row]:
    """Ratios of families at equal Frobenius and at equal operator norm: over all sizes where there are several."""
    found = [row for row in given(rows, "value") if row["statistic"] == "ratio"]
    found = [row for row in found if row["design"] in ("frobenius", "operator")]
    whole = {(site(row), row["design"], row["families"]) for row in found if row.get("size") is None}
    return [r for r in found if r.get("size") is None or (site(r), r["design"], r["families"]) not in whole]
