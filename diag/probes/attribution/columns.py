"""Probe `attribution`: which change to TD-MoE closes how much of its gap to MoBE, at equal stored bits.

A ladder of single changes leads from TD-MoE as published to TD-MoE done right, another one from the one basis in which
MoBE and Tucker meet to MoBE. Every step is measured on the same windows of a held-out text in one walk with the dense
model: losses, and where the residual stream ends. Of every step

    gap_closed = (L_published - L_step) / (L_published - L_MoBE)

L the mean cross-entropy, MoBE the better of its presets, in each bootstrap sample of the windows too. How much of the
gap is how TD-MoE was run (`shares`) is told of the step that loses least, chosen on other windows than it is told on.
It is told first of all against MoBE with the changes that this step has. Since changes may depend on order, Shapley
values share the same difference among TD-MoE's switches without one; and rank correlations say which error would have
predicted the losses.

Parts of a run are: a compressed model, whatever steps and coalitions it stands for; what is cut of a stack's modes
(`modes`); and the tables, which are computed from all of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diag.declare.column import Column, Columns, Row, View
from diag.declare.common_columns import COMMON, common
from tdmoe.numerics.gram import MODES

NAME = "attribution"
SHAPLEY = "attribution_shapley"
PREDICTORS = "attribution_predictors"
SHARES = "attribution_shares"
MEASURED = "measured"  # of a part: what the tables are computed from
VERSION = 3
STATISTICS_VERSION = 5  # of what is computed from the parts
TDMOE, MOBE, BESIDE = "tdmoe", "mobe", "beside"  # ladders
COMBINATION = "combination"  # of TD-MoE's switches, beside its ladder
PUBLISHED = "as published"  # the step that the gap is of
SAME_CHANGES, PRESETS = "same_changes", "presets"  # what shares of the gap are against
_NO_GAP = ("no_gap", "not_measured")
_LOW, _HIGH = "lower end of its 95 % interval", "upper end of it"
_STDERR = "standard error of it, paired by window"
_CUT, _FUNCTIONAL, _STREAM = "cutting one mode alone", "functional error", "residual stream after the last layer"

TABLES = {
    NAME: Columns(
        Column("step", "what is changed to the step before, or another model", form="text"),
        *common("method", "ratio", "bits_saved"),
        *(column.but(group="relative error") for column in common("weight_error", "functional_error",
                                                                  "operator_error")),
        COMMON["angle_deg"].but(group=_STREAM),
        Column("perplexity", "exp of the mean cross-entropy", form="perplexity", error="perplexity_stderr",
               why=("overflow",)),
        Column("perplexity_stderr", "standard error of it", form="rough"),
        Column("gap_closed", "(L_published - L_step) / (L_published - L_MoBE), L mean cross-entropies", form="percent",
               low="gap_low", high="gap_high", why=_NO_GAP),
        Column("gap_low", _LOW, form="percent"),
        Column("gap_high", _HIGH, form="percent"),
        *common("status"),
        Column("ladder", "tdmoe, mobe, a combination of TD-MoE's switches, or beside", form="method"),
        Column("projections", "projections that are compressed", form="text"),
        Column("ranks", "ranks of the stacks (expert, output, input)", form="text"),
        Column("loss_nats", "mean next-token cross-entropy", "loss", "nats", "loss", "loss_nats_stderr"),
        Column("loss_nats_stderr", "standard error of it over windows", form="loss"),
        Column("loss_difference_nats", "loss less that of the dense model", "above dense", "nats", "loss",
               "loss_difference_nats_stderr"),
        Column("loss_difference_nats_stderr", _STDERR, form="loss"),
        Column("change_nats", "loss less that of the step before", "change", "nats", "change", "change_nats_stderr"),
        Column("change_nats_stderr", _STDERR, form="loss"),
        COMMON["functional_error_expert"].but(group="relative error"),
        *(Column(f"mode_error_{mode}", f"functional error of cutting the {mode} mode alone to the step's rank", mode,
                 form="error", group=_CUT) for mode in MODES),
        Column("floor", "largest of the three: no Tucker decomposition of these ranks is below", form="error",
               group=_FUNCTIONAL),
        Column("norm_ratio", "norm of the residual stream over that of the dense model", form="error", group=_STREAM),
        *common("seconds"),
        Column("text", "held-out text", form="text"),
        Column("windows", "windows of the text", form="integer"),
        COMMON["tokens"].but(meaning="tokens that were scored"),
        Column("calibration", "statistics of the inputs that the method used", form="text"),
        Column("mobe_difference_nats", "loss less that of the better preset of MoBE", "above MoBE", "nats", "change",
               low="mobe_difference_low", high="mobe_difference_high"),
        Column("mobe_difference_low", _LOW, form="change"),
        Column("mobe_difference_high", _HIGH, form="change"),
        Column("bits_saved_of", "what bits_saved is a share of", form="text"),
        *common("variant"),
    ),
    SHAPLEY: Columns(
        Column("switch", "short name of a change", form="text"),
        Column("text", "the change", "change", form="text"),
        Column("nats", "loss that it takes away, mean over the orders of changes", "Shapley value", "nats", "loss",
               low="nats_low", high="nats_high"),
        Column("nats_low", _LOW, form="loss"),
        Column("nats_high", _HIGH, form="loss"),
        Column("gap_share", "nats as a share of the gap to MoBE", "of the gap", form="percent", low="gap_share_low",
               high="gap_share_high", why=("no_gap",)),
        Column("gap_share_low", _LOW, form="percent"),
        Column("gap_share_high", _HIGH, form="percent"),
        Column("alone_nats", "loss that it takes away as the first change", "as the first", "nats", "loss"),
        Column("last_nats", "loss that it takes away as the last change", "as the last", "nats", "loss"),
        Column("orders", "orders in the mean: all, or how many were drawn", form="text"),
        Column("coalitions", "combinations of changes that were measured", "combinations", form="integer"),
        Column("windows", "windows of the text", form="integer"),
        *common("status"),
    ),
    PREDICTORS: Columns(
        Column("error", "column of attribution.csv", form="text"),
        Column("response", "column that it is to order", form="text"),
        Column("rank_correlation", "Spearman's rank correlation of error and response over the models", form="factor",
               low="low", high="high"),
        Column("low", _LOW, form="factor"),
        Column("high", _HIGH, form="factor"),
        Column("runs", "different compressed models", "models", form="integer"),
        *common("status"),
    ),
    SHARES: Columns(
        Column("against", "same_changes: MoBE with the changes of TD-MoE's best run; presets: MoBE as it is",
               form="text"),
        Column("step", "TD-MoE's best run over all windows", "TD-MoE's best run", form="text"),
        Column("ladder", "ladder of that run", form="method"),
        Column("step_first_half", "run that loses least on the second half: told of the first", form="text"),
        Column("step_second_half", "run that loses least on the first half: told of the second", form="text"),
        Column("mobe", "step of MoBE that loses least", "MoBE", form="text"),
        Column("given", "changes of that run that MoBE had too", form="text"),
        Column("not_given", "changes of it that MoBE had not", form="text"),
        Column("gap_nats", "L_published - L_MoBE", "gap", "nats", "loss", low="gap_nats_low", high="gap_nats_high"),
        Column("gap_nats_low", _LOW, form="loss"),
        Column("gap_nats_high", _HIGH, form="loss"),
        Column("gap_closed", "(L_published - L_best) / (L_published - L_MoBE)", "how TD-MoE was run", form="percent",
               low="gap_low", high="gap_high", why=("no_gap",)),
        Column("gap_low", _LOW, form="percent"),
        Column("gap_high", _HIGH, form="percent"),
        Column("left_nats", "L_best - L_MoBE", "what remains", "nats", "change", low="left_low", high="left_high"),
        Column("left_low", _LOW, form="change"),
        Column("left_high", _HIGH, form="change"),
        Column("text", "held-out text", form="text"),
        Column("windows", "windows of the text", form="integer"),
        *common("status"),
    ),
}  # fmt: skip
_STEPS = TABLES[NAME]
_MOST = 4  # ranks in a cell
_MORE = Column("more_stored", "stored bits over those of the first step, less 1", "more stored than the first step",
               form="percent")  # fmt: skip


def views(tables: Mapping[str, Sequence[Row]]) -> list[View]:
    """Every step; shares of the gap; MoBE's ladder; Shapley values; floors; rank correlations; errors; specs."""
    rows = [{**row, "more_stored": _more_stored(row, tables[NAME])} for row in tables[NAME]]
    mobe = [row for row in rows if row.get("ladder") == MOBE]
    with_ranks = [{**row, "ranks": _few(str(row["ranks"]))} for row in rows
                  if row.get("ranks") and row.get("ladder") in (TDMOE, COMBINATION)]  # fmt: skip
    compressed = [row for row in rows if row.get("method") != "dense"]
    named = [{**row, "error": error_name(row)} for row in tables.get(PREDICTORS, ())]
    losses = ("loss_difference_nats", "loss_difference_nats_stderr", "change_nats", "change_nats_stderr", "gap_closed",
              "gap_low", "gap_high", "bits_saved", "perplexity", "perplexity_stderr", "status")  # fmt: skip
    modes = [f"mode_error_{mode}" for mode in MODES]
    own = COMMON["functional_error"].but(label="of the step", group=_FUNCTIONAL)
    return [
        View("ladder", "What each change takes away", "Loss above the dense model's and change to the step before, "
             "mean and paired standard error over windows; share of the gap between TD-MoE as published and MoBE, 95 % "
             "interval", _STEPS.pick("ladder", "step", *losses), rows),
        View("shares", "How much of the gap is how TD-MoE was run", "TD-MoE's best run against MoBE, 95 % intervals",
             TABLES[SHARES].pick("against", "given", "not_given", "mobe", "step", "gap_nats", "gap_nats_low",
                                 "gap_nats_high", "gap_closed", "gap_low", "gap_high", "left_nats", "left_low",
                                 "left_high", "status"), tables.get(SHARES, ())),
        View("mobe", "Where MoBE's advantage comes from", "MoBE's ladder, as above", _STEPS.pick("step", *losses), mobe,
             folded=True),
        View("shapley", "Each change, averaged over orders", "Loss that each change takes away, 95 % intervals",
             [column for column in TABLES[SHAPLEY].pick() if column.name != "switch"], tables.get(SHAPLEY, ()),
             folded=True),
        View("floor", "What the ranks alone cost", "Functional error by mode and the floor of each step's ranks, means "
             "over stacks", [*_STEPS.pick("step", "ranks", *modes, "floor"), own], with_ranks, folded=True),
        View("predictors", "Which error predicts the loss", "Rank correlation with the loss above the dense model's, "
             "95 % intervals", TABLES[PREDICTORS].pick("error", "rank_correlation", "low", "high", "runs", "status"),
             named, folded=True),
        View("errors", "Errors and drift of every step", "Errors of the factors, means over stacks, and where the "
             "residual stream ends",
             _STEPS.pick("step", "weight_error", "functional_error", "functional_error_expert", "operator_error",
                         "angle_deg", "norm_ratio", "status"), compressed, folded=True),
        View("specs", "Every step as a method", "Every step as a spec of --method",
             [*_STEPS.pick("step"), COMMON["method"].but(form="name"), *_STEPS.pick("ratio", "bits_saved"), _MORE,
              *_STEPS.pick("projections", "calibration", "seconds", "status")], rows, folded=True),
    ]  # fmt: skip


def error_name(row: Row) -> str:
    """An error in a reader's words."""
    name = str(row.get("error"))
    known = _STEPS.described.get(name)
    return name if known is None else known.heading


def _few(ranks: str) -> str:
    """Names of the first stacks, and how many others there are."""
    parts = ranks.split()
    return " ".join(parts[:_MOST]) + (f" and {len(parts) - _MOST} more" if len(parts) > _MOST else "")


def _more_stored(row: Row, rows: Sequence[Row]) -> float | None:
    """Share of bits stored beyond the first row; nothing where the method fixes its storage, or it is unknown."""
    first: Any = rows[0].get("bits_saved")
    known = None not in (first, row.get("bits_saved"), row.get("ratio")) and first < 1
    return (1 - row["bits_saved"]) / (1 - first) - 1 if known else None
