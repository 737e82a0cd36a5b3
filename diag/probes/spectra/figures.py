"""Figures of spectra: exponents over depth, and the singular values of every layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from diag.declare.column import Row
from diag.probes.spectra.columns import difference
from reports.formats import measured
from reports.plots import Heat, Panel, Panels, Plot, Series
from reports.theme import order
from tdmoe.numerics.gram import MODES

_POINTS = 80  # of a line, log-spaced: a logarithmic axis cannot tell them from all


def figures(tables: Mapping[str, Sequence[Row]], arrays: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    """A heat map over depth, and one figure for each layer with arrays."""
    rows = {(r["layer"], r["projection"], r.get("mode")): r for r in tables["spectra"]}
    if not rows:
        return []
    layers = sorted({layer for layer, _, _ in rows})
    projections = sorted({projection for _, projection, _ in rows}, key=order)
    found: list[Plot] = [depth(rows, layers, projections)]
    for layer in layers:
        spectra = {p: s for p in projections if (s := arrays.get(f"spectra-L{layer:03d}-{p}"))}
        if spectra:
            found.append(layer_spectra(layer, rows, spectra))
    return found


def depth(rows: Mapping[Any, Row], layers: Sequence[int], projections: Sequence[str]) -> Heat:
    """Alpha less its baseline, by layer, projection and mode."""
    columns = [(projection, mode) for projection in projections for mode in MODES]
    cells = [[rows.get((layer, *column), {}) for column in columns] for layer in layers]
    return Heat(
        "spectra-depth", "Exponents over depth",
        "Colour: exponent alpha less that of a Gaussian stack of the same shape (no unit). Red is steeper, blue is "
        "flatter, hatched is not measured. Numbers, where layers are few: alpha.",
        rows=[str(layer) for layer in layers], columns=[mode for _, mode in columns],
        values=[[difference(row) for row in line] for line in cells],
        texts=[[measured(row["alpha"], "exponent") if row.get("alpha") is not None else "" for row in line]
               for line in cells],
        groups=[(projection, len(MODES)) for projection in projections],
        scale="alpha − alpha of the Gaussian baseline", x="mode of the unfolding, by projection", y="layer",
        view="depth",
    )  # fmt: skip


def layer_spectra(layer: int, rows: Mapping[Any, Row], spectra: Mapping[str, Mapping[str, Any]]) -> Panels:
    """Singular values over the largest one, a panel a mode."""
    panels = [
        Panel(f"{mode} mode", [
            line for projection, found in spectra.items() if (layer, projection, mode) in rows
            for line in _lines(projection, found.get(mode), found.get(f"{mode}_null"), rows[layer, projection, mode])
        ])
        for mode in MODES
    ]  # fmt: skip
    return Panels(
        f"spectra-L{layer:03d}", f"Layer {layer}",
        "Singular values over the largest one. Dashed grey: a Gaussian stack of the same shape and total energy, one "
        "line a projection. Thin dark line: the fitted power law over its fit range. Dotted: below the noise floor, "
        "not fitted.",
        panels=panels, x="index i", y="σᵢ / σ₁ (no unit)", log="xy", tile=True,
    )  # fmt: skip


def _lines(projection: str, sigma: Any, null: Any, row: Row) -> Iterator[Series]:
    """The spectrum above its noise floor and below, its baseline, and its fit."""
    values, other = (np.asarray(() if v is None else v, dtype=float) for v in (sigma, null))
    if not values.size or values[0] <= 0:
        return
    index = _thinned(values.size)
    solid = values[index - 1] > (row.get("noise_floor") or 0.0)
    positive = values[index - 1] > 0
    if other.size and other[0] > 0:
        thin = _thinned(other.size)
        yield Series(thin, other[thin - 1] / values[0], "baseline", "Gaussian baseline", "dashed")
    yield Series(index[solid], values[index[solid] - 1] / values[0], projection)
    if (faint := index[~solid & positive]).size:
        yield Series(faint, values[faint - 1] / values[0], projection, "", "faint")
    if row.get("alpha") is not None and row.get("fit_last") is not None:
        ends = np.array([row["fit_first"], min(row["fit_last"], values.size)], dtype=int)
        yield Series(ends, _fitted(values / values[0], float(row["alpha"]), ends), "fit", "power-law fit", "thin")


def _fitted(values: np.ndarray, alpha: float, ends: np.ndarray) -> np.ndarray:
    """The least-squares line of slope -alpha at the ends of its range: it passes through the means of the logs."""
    index = np.arange(ends[0], ends[1] + 1)
    index = index[values[index - 1] > 0]
    centre = np.log(values[index - 1]).mean() + alpha * np.log(index).mean()
    return np.asarray(np.exp(centre) * ends.astype(float) ** -alpha)


def _thinned(count: int) -> np.ndarray:
    """Indices 1..count, log-spaced, with the last few because a spectrum may fall off there."""
    spaced = np.geomspace(1, count, _POINTS).round().astype(int)
    return np.unique(np.concatenate([spaced, np.arange(max(1, count - 3), count + 1)]))
