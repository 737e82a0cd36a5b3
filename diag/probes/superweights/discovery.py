"""Super weights of a loaded model, found by their spikes in a prompt and then in a text, as rows of tables.

The prompt is the published one; of a Mixture-of-Experts model its few tokens reach few experts, so the text follows,
with what the prompt showed set to zero. The inputs of every down projection over the text are kept as mean squares.

Legend: E experts, I inputs, W windows, T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdmoe.runtime.down_projections import DownProjections, Site
from tdmoe.runtime.spikes import Spike, Watched, discover, watch

Row = dict[str, Any]
Arrays = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Search:
    """A search for spikes; `known` are published entries (layer, row, column) of dense down projections."""

    prompt_T: Tensor
    windows_WT: Tensor
    threshold: float
    most: int
    known: tuple[tuple[int, int, int], ...] = ()


def search(
    projections: DownProjections, given: Search, on_window: Callable[[], None] = lambda: None
) -> tuple[dict[str, list[Row]], Arrays]:
    """Rows of `superweights` and `spikes`, and the mean squares of all inputs; the model is as before at the end."""
    windows = {"prompt": [given.prompt_T], "text": list(given.windows_WT)}
    seen = {source: watch(projections, some, on_window) for source, some in windows.items()}
    how: dict[str, Any] = {"threshold": given.threshold, "on_window": on_window}
    found = [
        ("prompt", s) for s in discover(projections, windows["prompt"], most=given.most, first=seen["prompt"], **how)
    ]
    left = given.most - len(found)
    with projections.zeroed([spike.entry for _, spike in found]):
        first = None if found else seen["text"]
        found += [("text", s) for s in discover(projections, windows["text"], most=left, first=first, **how)]
    tokens = {source: sum(len(window_T) for window_T in some) for source, some in windows.items()}
    rows = [_found(spike, source, tokens[source], given.known) for source, spike in found]
    rows += _missed(projections, given.known, rows)
    if not rows:
        row = {"tokens": sum(tokens.values()), "status": "none_found"}
        rows = [row | {"published": False if given.known else None}]
    return {"superweights": rows, "spikes": _spikes(seen, tokens, given.threshold)}, _arrays(seen["text"])


def site_of_row(row: Mapping[str, Any]) -> Site:
    """The down projection that a row of any table is about."""
    expert = row.get("expert")
    return Site(int(row["layer"]), str(row["projection"]), None if expert is None else int(expert))


def labels(site: Site) -> Row:
    """The columns that tell a down projection apart."""
    return {"layer": site.layer, "projection": site.projection, "expert": site.expert}


def mean_square(arrays: Mapping[str, NDArray[np.float64]], site: Site) -> Tensor | None:
    """The diagonal of the second moment of a projection's inputs; None where no token came."""
    name = _name(site.layer, site.projection)
    expert = site.expert or 0
    if name not in arrays or not arrays[f"{name}-tokens"][expert]:
        return None
    return torch.from_numpy(arrays[name][expert])


def tokens_of(arrays: Mapping[str, NDArray[np.float64]], layer: int, projection: str = "down") -> NDArray[np.float64]:
    """Number of tokens that each of a layer's down projections got; of length 0 where the layer has none."""
    return arrays.get(f"{_name(layer, projection)}-tokens", np.zeros(0))


def _name(layer: int, projection: str) -> str:
    return f"L{layer:03d}-{projection}"


def _found(spike: Spike, source: str, tokens: int, known: Iterable[tuple[int, int, int]]) -> Row:
    row = _measured(spike, source, tokens) | {"status": "found"}
    listed = spike.site == Site(spike.site.layer) and (spike.site.layer, spike.row, spike.column) in known
    return row | {"published": listed if known else None}


def _missed(projections: DownProjections, known: Iterable[tuple[int, int, int]], rows: list[Row]) -> list[Row]:
    """Published entries that no spike showed, where the model has such a place."""
    there = {(row["layer"], row["row"], row["column"]) for row in rows if row["expert"] is None}
    missed = []
    for layer, row, column in known:
        W_OI = projections.find(Site(layer))
        if (layer, row, column) in there or W_OI is None or row >= W_OI.shape[0] or column >= W_OI.shape[1]:
            continue
        place = {**labels(Site(layer)), "row": row, "column": column, "value": float(W_OI[row, column])}
        missed.append({**place, "published": True, "status": "published"})
    return missed


def _spikes(seen: Mapping[str, Watched], tokens: Mapping[str, int], threshold: float) -> list[Row]:
    """Each layer's strongest, of prompt and text."""
    best: dict[int, tuple[str, Spike]] = {}
    for source, watched in seen.items():
        for layer, spike in watched.strongest().items():
            if layer not in best or spike.order > best[layer][1].order:
                best[layer] = source, spike
    return [
        {
            **_measured(spike, source, tokens[source]),
            **{"same_token": spike.same_token, "threshold": threshold},
            "status": "above" if spike.same_token and spike.strength > threshold else "below",
        }
        for _, (source, spike) in sorted(best.items())
    ]


def _measured(spike: Spike, source: str, tokens: int) -> Row:
    return {
        **labels(spike.site),
        **{"row": spike.row, "column": spike.column, "value": spike.value},
        **{"input_activation": spike.input, "output_activation": spike.output, "tokens": tokens},
        **{"input_ratio": spike.input_ratio, "output_ratio": spike.output_ratio, "output_share": spike.share},
        **{"source": source, "token": spike.token},
    }


def _arrays(watched: Watched) -> Arrays:
    """Arrays by layer and projection: mean squares (E, I), zero where no token came, and tokens (E,)."""
    arrays: Arrays = {}
    experts: dict[tuple[int, str], int] = {}
    for site in watched.squares_I:
        key = site.layer, site.projection
        experts[key] = max(experts.get(key, 0), (site.expert or 0) + 1)
    for site, squares_I in watched.squares_I.items():
        name = _name(site.layer, site.projection)
        if name not in arrays:
            count = experts[site.layer, site.projection]
            arrays[name] = np.zeros((count, len(squares_I)))
            arrays[f"{name}-tokens"] = np.zeros(count)
        at = site.expert or 0
        arrays[name][at] = (squares_I / watched.tokens[site]).cpu().numpy()
        arrays[f"{name}-tokens"][at] = watched.tokens[site]
    return arrays
