"""Predictors of the response among errors: rank correlations, exponents, designed contrasts, bootstrap intervals.

A cell is a (design, family, size); its response R is the mean change of the loss over windows and seeds. Within one
scope (the same stacks injected), over cells:

    spearman   rank correlation of an error with the response, over runs
    exponent   log R = a + b log error, one error at a time; `r2` is what of the variance it explains
    within     log R = a_size + b log error in one design: sizes have intercepts of their own, so that b comes from the
               families alone, which differ in every error but the one that the design holds equal
    joint      log R = a + b_w log weight + b_f log functional + b_o log operator over all cells together
    ratio      R of one family over R of another, at the same design and size
    excess     R of what a method leaves, over what log R = a + b log error of the drawn families says of its error

    r2_difference  r2 of one error's exponent less that of another, over the same cells

Windows are the same ones for all runs (responses are paired by window); the seeds of a family are the same ones for
all its designs and sizes, which share their draws. With few of either, percentiles of resamples would be too narrow;
so the intervals of all but spearman and r2_difference are Student's: around the estimate t (of its logarithm for ratio
and excess), from what leaving out one window, or one seed of one family, changes:

    v_g = (n_g - 1) / n_g sum_j (t_-j - mean t_-j)^2      g: the windows, or the n_g seeds of one family
    t -/+ q sqrt(sum_g v_g),   q Student's quantile at (sum_g v_g)^2 / sum_g (v_g^2 / (n_g - 1)) degrees of freedom

(jackknife, Efron and Stein 1981; degrees of freedom by Satterthwaite 1946). Those of spearman are percentiles over
resampled windows and runs, those of r2_difference over resampled windows, seeds and cells: how well an error predicts
is a statement on kinds of residual. Resamples draw n - 1 of n windows, seeds and cells, so that their variance is not
(n - 1) / n of what it should be (Rao and Wu 1988). Cells whose response is not clearly positive (in 99 % of the
samples) have no logarithm, or one of noise alone; they are left out and counted.

Legend: R runs, C cells, S seeds of a cell, W windows, B bootstrap samples, J left out in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diag.probes.injection.cells import ERRORS, Cells, Run, geometric
from diag.statistics.correlation import spearman
from diag.statistics.intervals import interval, picks, weights

JOINT = ("weight_error", "functional_error", "operator_error")
SAMPLES = 1000
HELD = {"frobenius": "weight_error", "operator": "operator_error", "functional": "functional_error"}
PAIRS = (("rank_one", "flat"), ("along", "against"))

Vector = NDArray[np.float64]
Row = dict[str, Any]


def summarise(runs: Sequence[Run], seed: int, samples: int = SAMPLES) -> list[Row]:
    """Every statistic of one scope's runs; columns as `found` gives them."""
    rows = list(_correlations(runs, np.random.default_rng([seed, 0]), samples))
    cells = Cells(runs, np.random.default_rng([seed, 1]), samples)
    differences = _differences(cells, np.random.default_rng([seed, 2]))
    return [*rows, *_exponents(cells), *differences, *_ratios(cells), *_excesses(cells)]


def _correlations(runs: Sequence[Run], random: np.random.Generator, samples: int) -> Iterator[Row]:
    change_RW = np.stack([run.change_W for run in runs])
    picks_BR, weights_BW = picks(random, samples, len(runs)), weights(random, samples, change_RW.shape[1])
    responses_BR = weights_BW @ change_RW.T
    for error in ERRORS:
        known = [run.row[error] for run in runs]
        if any(value is None for value in known):
            yield found("spearman", error, {}, status="no_statistics_of_each_expert")
            continue
        x_R = np.array(known, dtype=np.float64)
        value = spearman(x_R, change_RW.mean(1))
        sampled = [spearman(x_R[p], r[p]) for p, r in zip(picks_BR, responses_BR, strict=True)]
        bounds = interval([np.nan if s is None else s for s in sampled])
        status = "ok" if value is not None else "constant"
        yield found("spearman", error, {"count": len(runs)}, value, bounds, status)


def _exponents(cells: Cells) -> Iterator[Row]:
    everything = cells.drawn_C
    sizes = np.array([size for _, _, size in cells.keys])
    designs = np.array([design for design, _, _ in cells.keys])
    for error in ERRORS:
        yield from _fits("exponent", cells, everything, (error,), None)
    for design in dict.fromkeys(designs.tolist()):
        for error in ERRORS:
            if error != HELD[design]:
                yield from _fits("within", cells, everything & (designs == design), (error,), sizes, design)
    yield from _fits("joint", cells, everything, JOINT, None)


def _fits(
    statistic: str,
    cells: Cells,
    chosen_C: NDArray[np.bool_],
    errors: tuple[str, ...],
    sizes_C: Vector | None,
    design: str | None = None,
) -> Iterator[Row]:
    """A row an error of the regression of log responses on log errors, over the chosen cells."""
    columns = [cells.column(error) for error in errors]
    if any(column is None for column in columns):
        yield from (
            found(statistic, error, {"design": design}, status="no_statistics_of_each_expert") for error in errors
        )
        return
    x_CK = np.stack(columns, 1)  # type: ignore[arg-type]
    kept_C = chosen_C & cells.clear_C & np.isfinite(x_CK).all(1)
    counts = {"design": design, "count": int(kept_C.sum()), "left_out": int((chosen_C & ~kept_C).sum())}
    x_CK, groups_C = x_CK[kept_C], np.zeros(int(kept_C.sum())) if sizes_C is None else sizes_C[kept_C]
    fit = regress(x_CK, cells.mean_C[kept_C], groups_C)
    if fit is None:
        yield from (found(statistic, error, counts, status="not_identified") for error in errors)
        return
    slopes_JK = resampled(x_CK, cells.mean_JC[:, kept_C], groups_C)
    for k, error in enumerate(errors):
        bounds = cells.bounds(float(fit[0][k]), slopes_JK[:, k])
        yield found(statistic, error, {**counts, "r2": fit[1]}, float(fit[0][k]), bounds)


def regress(x_CK: Vector, response_C: Vector, groups_C: Vector) -> tuple[Vector, float] | None:
    """Slopes (K,) and R^2 of log response = a_group + sum_k b_k x_k, least squares over the positive responses.

    None where they do not determine the slopes, or leave no degree of freedom.
    """
    use = (np.nan_to_num(response_C, nan=-1.0) > 0) & np.isfinite(x_CK).all(1)
    x, y, groups = x_CK[use], np.log(response_C[use]), groups_C[use]
    kinds = np.unique(groups)
    if len(y) <= len(kinds) + x.shape[1]:
        return None
    for group in kinds:
        inside = groups == group
        x = x - np.where(inside[:, None], x[inside].mean(0), 0.0)
        y = y - np.where(inside, y[inside].mean(), 0.0)
    solved, _, rank, _ = np.linalg.lstsq(x, y, rcond=1e-6)
    if rank < x.shape[1] or np.abs(x).max() < 1e-9:
        return None
    slopes = np.asarray(solved, dtype=np.float64)
    total = float(y @ y)
    return slopes, 1.0 - float(np.square(y - x @ slopes).sum()) / total if total > 0 else 1.0


def resampled(x_CK: Vector, response_BC: Vector, groups_C: Vector) -> Vector:
    """(B, K) slopes of `regress` for every row of responses, at once where all of a row are positive."""
    centred_CK = x_CK - np.stack([x_CK[groups_C == group].mean(0) for group in groups_C])
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes_BK: Vector = np.log(response_BC) @ np.linalg.pinv(centred_CK, rcond=1e-6).T
    for b in np.flatnonzero(~(response_BC > 0).all(1)):
        fit = regress(x_CK, response_BC[b], groups_C)
        slopes_BK[b] = np.nan if fit is None else fit[0]
    return slopes_BK


def _differences(cells: Cells, random: np.random.Generator) -> Iterator[Row]:
    """A row for each two of the three errors that every run has."""
    for error, other in combinations(JOINT, 2):
        columns = [cells.column(name) for name in (error, other)]
        assert columns[0] is not None and columns[1] is not None, "every run has them"
        x_2C = np.stack([column for column in columns if column is not None])
        kept_C = cells.drawn_C & cells.clear_C & np.isfinite(x_2C).all(0)
        count, left_out = int(kept_C.sum()), int((cells.drawn_C & ~kept_C).sum())
        what: Row = {"count": count, "left_out": left_out, "other_error": other}
        x_2C, response_BC = x_2C[:, kept_C], cells.mean_BC[:, kept_C]
        if count < 3 or (np.ptp(x_2C, axis=1) < 1e-9).any():
            yield found("r2_difference", error, what, status="not_identified")
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            y_BC = np.where(response_BC > 0, np.log(response_BC), np.nan)
        y_C = np.log(cells.mean_C[kept_C])
        weights_BC = weights(random, len(y_BC), count)
        values = [float(explained(x_C, y_C[None], np.ones((1, count)))[0]) for x_C in x_2C]
        ours_B, theirs_B = (explained(x_C, y_BC, weights_BC) for x_C in x_2C)
        bounds = interval((ours_B - theirs_B).tolist())
        yield found("r2_difference", error, what, values[0] - values[1], bounds)


def explained(x_C: Vector, y_BC: Vector, weights_BC: Vector) -> Vector:
    """(B,) R^2 of y = a + b x, each cell counting as often as its weight says; NaN where one of both is constant."""
    w_BC = weights_BC / weights_BC.sum(1, keepdims=True)
    x_BC = x_C - (w_BC @ x_C)[:, None]
    y_BC = y_BC - (w_BC * y_BC).sum(1, keepdims=True)
    xx_B, yy_B, xy_B = ((w_BC * product).sum(1) for product in (x_BC * x_BC, y_BC * y_BC, x_BC * y_BC))
    with np.errstate(divide="ignore", invalid="ignore"):
        found_B: Vector = np.where((xx_B > 1e-18) & (yy_B > 0), xy_B**2 / (xx_B * yy_B), np.nan)
    return found_B


def _ratios(cells: Cells) -> Iterator[Row]:
    """R of the first family of a pair over the second's, and the ratios of their errors: of each size, and of all.

    The row without a size is the geometric mean over the sizes at which both responses are clearly positive.
    """
    for first, second in PAIRS:
        for design in dict.fromkeys(design for design, _, _ in cells.keys):
            sizes = [size for d, family, size in cells.keys if (d, family) == (design, first)]
            both = [size for size in sizes if (design, second, size) in cells.keys]
            clear = [size for size in both if cells.clear(design, first, size) and cells.clear(design, second, size)]
            for chosen in [*([size] for size in both), *([clear] if len(both) > 1 and clear else [])]:
                a, b = ([cells.keys.index((design, name, size)) for size in chosen] for name in (first, second))
                what: Row = {"design": design, "families": f"{first}/{second}"}
                what |= {"size": None if chosen is clear else chosen[0], "count": len(chosen)}
                for error in JOINT:  # the three that every run has
                    ours, theirs = (geometric([cells.errors[c][error] for c in side]) for side in (a, b))
                    what[f"{error}_ratio"] = _over(ours, theirs)
                value = _mean_ratio(cells.mean_C[None], a, b)[0]
                if np.isnan(value):
                    yield found("ratio", None, what, status="not_positive")
                else:
                    bounds = _of_logs(cells, float(value), _mean_ratio(cells.mean_JC, a, b))
                    yield found("ratio", None, what, float(value), bounds)


def _excesses(cells: Cells) -> Iterator[Row]:
    """Geometric mean over the cells of a method, for every error."""
    for method in dict.fromkeys(key[1] for key, drawn in zip(cells.keys, cells.drawn_C, strict=True) if not drawn):
        own_C = np.array([family == method for _, family, _ in cells.keys]) & cells.clear_C
        for error in ERRORS:
            what: Row = {"families": method, "count": int(own_C.sum())}
            x_C = cells.column(error)
            if x_C is None:
                yield found("excess", error, what, status="no_statistics_of_each_expert")
                continue
            value, *left_out = (
                _excess(x_C, response_C, cells.drawn_C & cells.clear_C, own_C)
                for response_C in [cells.mean_C, *cells.mean_JC]
            )
            if np.isnan(value):
                yield found("excess", error, what, status="not_positive")
            else:
                yield found("excess", error, what, value, _of_logs(cells, value, np.array(left_out)))


def _excess(x_C: Vector, response_C: Vector, drawn_C: NDArray[np.bool_], own_C: NDArray[np.bool_]) -> float:
    """NaN where a response of the method is not positive, or the drawn cells give no law."""
    usable_C = (np.nan_to_num(response_C, nan=-1.0) > 0) & np.isfinite(x_C)
    law_C = drawn_C & usable_C
    if not own_C.any() or not usable_C[own_C].all() or law_C.sum() < 3 or np.ptp(x_C[law_C]) < 1e-9:
        return float("nan")
    slope, intercept = np.polyfit(x_C[law_C], np.log(response_C[law_C]), 1)
    return float(np.exp((np.log(response_C[own_C]) - intercept - slope * x_C[own_C]).mean()))


def _of_logs(cells: Cells, value: float, left_out_J: Vector) -> tuple[float | None, float | None]:
    """Interval of what is positive and varies by factors."""
    low, high = cells.bounds(float(np.log(value)), np.log(left_out_J))
    return None if low is None else float(np.exp(low)), None if high is None else float(np.exp(high))


def _mean_ratio(mean_BC: Vector, top: list[int], bottom: list[int]) -> Vector:
    """(B,) geometric mean of ratios; NaN where a response is not positive, so that no ratio can be said."""
    positive_B = (mean_BC[:, top] > 0).all(1) & (mean_BC[:, bottom] > 0).all(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs_B = (np.log(mean_BC[:, top]) - np.log(mean_BC[:, bottom])).mean(1)
    return np.where(positive_B, np.exp(logs_B), np.nan)


def found(
    statistic: str,
    error: str | None,
    known: Row,
    value: float | None = None,
    bounds: tuple[float | None, float | None] = (None, None),
    status: str = "ok",
) -> Row:
    """A row of the table of contrasts; `known` are its other columns, as far as it has them."""
    names = (
        "design",
        "families",
        "size",
        "count",
        "left_out",
        "r2",
        *(f"{name}_ratio" for name in JOINT),
        "other_error",
    )
    return {"statistic": statistic, "error": error, "value": value, "low": bounds[0], "high": bounds[1]} | {
        **{name: known.get(name) for name in names},
        "status": status,
    }


def _over(a: float | None, b: float | None) -> float | None:
    return None if a is None or not b else a / b
