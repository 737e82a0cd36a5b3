"""The tables of `experts`, and how people read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from diag.declare.column import Column, Columns, Row, View
from diag.declare.common_columns import common
from diag.statistics.medians import given, groups, where

_PAIRS, _CUT, _STORED, _PRICE = "pairs", "published ranks", "error, as stored", "price of 1 % of the parameters"
_NOTHING = ("nothing_to_cut",)
_SHOWN = 24  # expert ranks of a curve in its table
MEASURES = {
    "cosine": "cosine of weights",
    "aligned_cosine": "cosine, units aligned",
    "input_overlap": "overlap of leading input directions",
    "input_angle": "angle of leading input directions, mean (degrees)",
    "input_angle_least": "angle of leading input directions, least (degrees)",
    "output_overlap": "overlap of leading output directions",
    "output_angle": "angle of leading output directions, mean (degrees)",
    "output_angle_least": "angle of leading output directions, least (degrees)",
    "cka": "CKA on the inputs' second moment",
    "cka_isotropic": "CKA on isotropic inputs",
}
SHARES = ("cosine", "aligned_cosine", "input_overlap", "output_overlap", "cka", "cka_isotropic")  # of which 1 is equal

TABLES = {
    "experts": Columns(
        *common("layer", "projection"),
        Column("expert_mode", "preserve keeps all experts, compress fewer", form="text"),
        Column("allocation", "published ranks, or the exact best ones", "ranks", form="text"),
        Column("rank_expert", "rank of the expert mode", "expert rank", form="integer"),
        Column("rank_output", "rank of the output mode", "output rank", form="integer"),
        Column("rank_input", "rank of the input mode", "input rank", form="integer"),
        Column("parameters", "stored parameters", form="integer"),
        Column("kept_ratio", "stored parameters over those of the dense stack", "kept", form="percent"),
        *(column.but(label=column.name.removesuffix("_error"), group=_STORED)
          for column in common("weight_error", "functional_error", "operator_error")),
        *common("status"),
        Column("point", "headline: made, stored and measured; curve: from the table of all triples", form="text"),
        *common("ratio"),
        Column("metric", "what errors are measured in: weights, or inputs (their second moment)", form="text"),
        Column("metric_error", "error in that metric, from the table of all triples", "least error", form="error"),
        Column("operator_error_max", "largest operator error of an expert", "largest operator error", form="error"),
        Column("price_expert", "squared error that cutting experts further adds, for 1 % of the dense parameters freed",
               "expert", group=_PRICE),
        Column("price_output", "the same of output directions", "output", group=_PRICE),
        Column("price_input", "the same of input directions", "input", group=_PRICE),
        *common("method", "variant"),
    ),
    "binding": Columns(
        *common("layer", "projection", "ratio"),
        Column("metric", "what errors are measured in: weights, or inputs (their second moment)", form="text"),
        Column("experts", "experts of the stack", form="integer"),
        Column("rank_expert", "expert rank of the triple with the least error", "best expert rank", form="integer"),
        Column("error_preserve", "least error with all experts", "least error, all experts", form="error"),
        Column("error_compress", "least error with experts cut", "least error, experts cut", form="error",
               why=_NOTHING),
        Column("rank_expert_compress", "expert rank of that triple", "its expert rank", form="integer", why=_NOTHING),
        Column("gain", "share of the least error that cutting experts saves; below 0 it adds", "saved by cutting",
               form="percent", low="gain_low", high="gain_high", why=_NOTHING),
        Column("gain_low", "lower end of its 95 % interval", form="percent"),
        Column("gain_high", "upper end of it", form="percent"),
        Column("price_share", "price of experts over that plus the price of the cheapest other mode", form="factor",
               low="price_share_low", high="price_share_high", why=_NOTHING),
        Column("price_share_low", "lower end of its 95 % interval", form="factor"),
        Column("price_share_high", "upper end of it", form="factor"),
        Column("expert_share", "share of the least squared error that the cut of experts alone leaves",
               "share of its error by cut experts", form="percent"),
        Column("rank_expert_published", "expert rank of the published compress triple", "expert rank", form="integer",
               group=_CUT),
        Column("published_difference", "its error less that of the published preserve triple", "compress less preserve",
               form="change", group=_CUT, why=_NOTHING),
        Column("due_to_experts", "of it, what the expert mode costs with the best other ranks", form="change",
               group=_CUT, why=_NOTHING),
        Column("due_to_ranks", "the rest: the accident of the other ranks", form="change", group=_CUT, why=_NOTHING),
        Column("binding", "whether the expert mode is the binding constraint: yes, no, undecided", form="text"),
        Column("groups", "groups of experts that were left out in turn", form="integer"),
        *common("status"),
        Column("gain_null", "gain of independent experts with the same spectra", "independent", form="percent",
               why=_NOTHING),
        Column("price_share_null", "price share of independent experts", "independent", form="factor", why=_NOTHING),
    ),
    "similarity": Columns(
        *common("layer", "projection"),
        Column("measure", "how likeness is measured", form="text"),
        Column("directions", "leading directions of an expert", "leading directions", form="integer"),
        Column("pairs", "pairs of experts", form="integer"),
        Column("mean", "mean over pairs", group=_PAIRS),
        Column("sd", "standard deviation over pairs", group=_PAIRS, form="rough"),
        Column("least", "least of the pairs", group=_PAIRS),
        Column("q05", "5 % quantile", "5 %", group=_PAIRS),
        Column("median", "median over pairs", group=_PAIRS),
        Column("q95", "95 % quantile", "95 %", group=_PAIRS),
        Column("greatest", "greatest of the pairs", group=_PAIRS),
        Column("null_mean", "mean over pairs of independent experts", "mean", group="independent experts"),
        Column("null_sd", "standard deviation over their pairs", "sd", form="rough", group="independent experts"),
        Column("null_draws", "draws of independent experts", form="integer"),
        Column("null_pairs", "their pairs in all draws", form="integer"),
        Column("null_mean_sd", "standard deviation of the mean over draws", form="rough"),
        Column("beyond_null", "share of pairs more alike than 97.5 % of independent ones",
               "beyond 97.5 % of independent", form="percent"),
        Column("order_free", "whether the arbitrary order of the experts' hidden units plays no part",
               "free of the units' order", form="text"),
        *common("status"),
    ),
}  # fmt: skip


def views(tables: Mapping[str, Sequence[Row]]) -> list[View]:
    """The answer of every stack; what it is made of; measured triples; curves; similarities."""
    points, binding = tables["experts"], tables["binding"]
    headlines = [row for row in points if row.get("point") != "curve"]
    alike = [row | {"measure": MEASURES.get(name, name)} if (name := row.get("measure")) else row
             for row in map(dict, tables["similarity"])]  # fmt: skip
    stack, cell = ("layer", "projection", "ratio"), ("layer", "ratio", "rank_expert")
    error = metric_error(points)
    return [
        View("binding", "The expert mode, stack by stack", f"Share of the least {error} that cutting experts saves at "
             "equal storage, beside independent experts (95 % intervals)", TABLES["binding"].pick(
                 *stack, "binding", "gain", "gain_low", "gain_high", "gain_null", "price_share", "price_share_low",
                 "price_share_high", "price_share_null"), binding),
        View("ranks", "Best and published ranks", f"Best ranks at equal storage, and the published ones ({error})",
             TABLES["binding"].pick(
                 *stack, "rank_expert", "expert_share", "error_preserve", "error_compress", "rank_expert_compress",
                 "rank_expert_published", "published_difference", "due_to_experts", "due_to_ranks"), binding,
             folded=True),
        View("triples", "Measured triples", "Published and best ranks with all experts and with experts cut",
             TABLES["experts"].pick(
                 *stack, "allocation", "expert_mode", "rank_expert", "rank_output", "rank_input", "kept_ratio",
                 "weight_error", "functional_error", "operator_error", "price_expert", "price_output", "price_input"),
             headlines, folded=True),
        View("curves", "Error over the expert rank", f"Least {error} by expert rank, and the ranks of the other modes "
             "(where there are many, not every one; all are in experts.csv)",
             TABLES["experts"].pick(*cell, "projection", "metric_error", "rank_output", "rank_input"),
             list(_thinned(points)), cell, "projection", folded=True),
        View("similarity", "Similarity of experts", "Pairs of experts, beside independent ones with the same spectra "
             "(no unit but for angles)", TABLES["similarity"].pick(
                 "layer", "projection", "measure", "mean", "q05", "median", "q95", "null_mean", "null_sd",
                 "beyond_null", "pairs", "directions", "order_free"), alike, folded=True),
    ]  # fmt: skip


def metric_error(points: Sequence[Row]) -> str:
    """Name of the errors in the metric of the run; damped where they are not functional errors."""
    rows = where(points, metric="inputs")
    if not rows:
        return "weight error"
    curves = where(rows, point="curve")
    return "functional error" if len(given(curves, "functional_error")) == len(curves) else "damped functional error"


def _thinned(points: Sequence[Row]) -> Iterator[Row]:
    """Points of every curve, at most so many, the full expert rank among them."""
    curves = given(where(points, point="curve"), "rank_expert")
    ranks = sorted({row["rank_expert"] for row in curves})
    shown = {*ranks[:: -max(1, -(-len(ranks) // _SHOWN))], *ranks[:1]}
    for by_ratio in groups(curves, "layer").values():
        for rows in groups(by_ratio, "ratio").values():
            yield from sorted((row for row in rows if row["rank_expert"] in shown), key=lambda row: row["rank_expert"])
