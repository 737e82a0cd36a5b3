"""The table of `drift`, and how people read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import hypot
from typing import Any

from diag.declare.column import Column, Columns, Row, View
from diag.declare.common_columns import COMMON, common, model_name
from diag.declare.parse import numbers
from diag.statistics.medians import given, groups, where
from reports.theme import title

ALL, ONE = "all", "one"
CAST = "cast:dtype="  # the dense model itself in another dtype
_NO_ROUTER = ("dense_layer", "other_experts")

TABLES = {
    "drift": Columns(
        *common("method", "ratio"),
        Column("scope", "one layer compressed alone (one), or all together (all)", form="text"),
        *common("compressed_layers", "layer"),
        COMMON["angle_deg"].but(error="angle_stderr"),
        Column("angle_stderr", "standard error of angle_deg over windows"),
        Column("norm_ratio", "length of the compressed model's residual stream over the dense model's, mean over "
               "tokens", form="factor", error="norm_ratio_stderr"),
        Column("routing_agreement", "share of a token's experts that the dense model chooses too", "same experts",
               form="percent", error="routing_agreement_stderr", why=_NO_ROUTER),
        Column("routing_js", "Jensen-Shannon distance of the routers' softmax, base 2", "router JS distance",
               error="routing_js_stderr", why=(*_NO_ROUTER, "no_router_logits")),
        *common("tokens", "status"),
        Column("after_last", "1 after the last compressed layer", form="integer"),
        Column("norm_ratio_stderr", "standard error of norm_ratio over windows"),
        Column("routing_agreement_stderr", "standard error of routing_agreement over windows"),
        Column("routing_js_stderr", "standard error of routing_js over windows"),
        Column("windows", "windows of the text", form="integer"),
        Column("text", "the text that is read", form="name"),
        Column("dtype", "what the models ran in", form="text"),
        *common("bits_saved", "projections", "checkpoint", "calibration", "bits_saved_of", "variant"),
    )
}  # fmt: skip
_DRIFT = TABLES["drift"]
_STREAM = ("angle_deg", "angle_stderr", "norm_ratio", "norm_ratio_stderr")
_ROUTING = ("routing_agreement", "routing_agreement_stderr", "routing_js", "routing_js_stderr")
_MODEL = Column("model", "the compressed model", form="method")
_AFTER = COMMON["layer"].but(label="after layer")
_ACCUMULATED = [
    _MODEL, _AFTER,
    Column("together", "all layers compressed together", unit="°"),
    Column("independent", "root sum square of each alone", "root sum square", "°"),
    Column("aligned", "sum of each alone", "sum", "°"),
    Column("over_independent", "together over the root sum square", "together / root sum square", form="factor"),
]  # fmt: skip


def views(tables: Mapping[str, Sequence[Row]]) -> list[View]:
    """Views after the last compressed layer; over depth; together against alone; routing; every set and layer alone."""
    rows = named(tables["drift"])
    shown = largest(rows)
    folders = ("checkpoint",) if any(row["checkpoint"] not in ("", row["method"]) for row in rows) else ()
    about = _DRIFT.pick("method", "ratio", "compressed_layers", *folders, "bits_saved")
    found = _DRIFT.pick(*_STREAM, *_ROUTING)
    over = [{**row, "model": title(row["model"])} for row in sorted(shown, key=lambda row: int(row["layer"]))]
    keys = ("layer",)
    depth = (COMMON["layer"], _MODEL)
    return [
        View("models", "After the last compressed layer", "After the last compressed layer: means over tokens ± "
             "standard errors over windows", [*about, _AFTER, *found], ends(shown)),
        View("depth", "Angle and norm ratio over depth", "At every decoder layer's output", [*depth, *_DRIFT.pick(
             *_STREAM)], over, keys, "model", folded=True),
        View("accumulated", "Local against accumulated", "Angles of all layers compressed together and of each of "
             "them alone, at the same layer's output", _ACCUMULATED, accumulated(rows), folded=True),
        View("routing", "Routing over depth", "At every router", [*depth, *_DRIFT.pick(*_ROUTING)],
             over if given(over, "routing_agreement") else [], keys, "model", folded=True),
        View("variants", "Every variant", "Every set of layers and every layer alone, after its last compressed layer",
             [*about, *_DRIFT.pick("scope"), _AFTER, *found], ends(rows), folded=True),
    ]  # fmt: skip


def named(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows with `model`, its name, and `size`, how many layers are compressed; words are never None."""
    told = [{**row, **{c: row.get(c) or "" for c in ("compressed_layers", "checkpoint")}} for row in rows]
    return [{**row, "model": model_name(row), "size": len(numbers(row["compressed_layers"]))} for row in told]


def ends(rows: Iterable[Row]) -> list[Row]:
    """Rows after the last compressed layer; after the last of all where it is not known which are."""
    return [row for row in rows if row.get("after_last")]


def largest(rows: Sequence[Row]) -> list[Row]:
    """Rows of each model's largest set of layers compressed together; largest angle at its end first, rounding last.

    `rows` are those of `named`.
    """
    kept: dict[str, list[Row]] = {}
    for model, ours in groups(where(rows, scope=ALL), "model").items():
        kept[model] = where(ours, size=max(row["size"] for row in ours))
    angles = {row["model"]: row["angle_deg"] for row in given(ends(row for ours in kept.values() for row in ours),
                                                              "angle_deg")}  # fmt: skip
    order = sorted(kept, key=lambda model: (model.startswith(CAST), -angles.get(model, -1.0), model))
    return [row for model in order for row in kept[model]]


def accumulated(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Angles of sets whose layers were all compressed alone too: of all together beside those of each alone.

    `alone` are angles by layer after the last one, `local` those after the layer itself, `independent` is the root sum
    square of `alone` and `aligned` its sum. `rows` are those of `named`.
    """
    angles = {
        (row["model"], row["compressed_layers"], row["layer"]): float(row["angle_deg"])
        for row in given(where(rows, scope=ONE), "angle_deg")
    }
    found = []
    for end in given(ends(where(largest(rows), checkpoint="")), "angle_deg"):
        layers = numbers(end["compressed_layers"])
        alone = {n: a for n in layers if (a := angles.get((end["model"], str(n), end["layer"]))) is not None}
        local = {n: a for n in layers if (a := angles.get((end["model"], str(n), n))) is not None}
        if 1 < len(layers) == len(alone) == len(local) and any(alone.values()):
            independent, together = hypot(*alone.values()), float(end["angle_deg"])
            sums = {"independent": independent, "aligned": sum(alone.values()), "together": together}
            found.append({"model": end["model"], "layer": end["layer"], "alone": alone, "local": local, **sums,
                          "over_independent": together / independent})  # fmt: skip
    return found


def growing(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Ends of models that were measured with several sets of layers together, smallest first."""
    known = [row for row in given(ends(where(rows, scope=ALL, checkpoint="")), "angle_deg") if row["size"]]
    found = groups(sorted(known, key=lambda row: row["size"]), "model")
    return {model: ours for model, ours in found.items() if len(ours) > 1}
