"""Conclusions of drift: how far each compressed model turns the residual stream, and whether layers' errors add up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from diag.declare.claim import Claim, Evidence, Quantity, count, interval, value
from diag.declare.column import Row
from diag.probes.drift.columns import CAST, ONE, accumulated, ends, growing, largest, named
from diag.statistics.medians import given, groups

TITLE = "Drift of the residual stream"
QUESTION = "How far does a compressed model's residual stream turn away, and do the errors of layers accumulate?"

ANGLE = Quantity("angle_deg", "Angle to the dense model's stream after the last compressed layer", "angle", "best")
NORM = Quantity("norm_ratio", "Length of the stream there, over the dense model's", "factor")
TOGETHER = Quantity(
    "over_independent", "All layers together, over independent errors of each alone (root sum square)", "factor",
    after="Above 1 errors share directions, above the value of one direction layers amplify each other's.",
)  # fmt: skip
ROUTING = Quantity("routing_agreement", "Least share of a token's experts that stay the same", "percent", "extreme")
ROUNDING = Quantity("rounding", "Rounding alone", "angle", after="So small an angle says nothing about a method.")
LOCAL = Quantity("local", "Largest angle of a layer compressed alone, at its own output", "angle", "extreme")
CARRIED = Quantity("carried", "Largest angle of a layer compressed alone, at the last one's output", "angle", "extreme")
GROWTH = Quantity("growth", "Angle of the largest set of layers, beside the smallest", "angle")
LOST = Quantity("not_finite", "Models whose stream is not finite there, so that it has no angle", pattern="share")


def claims(tables: Mapping[str, Sequence[Row]]) -> list[Claim]:
    """The most important first; nothing where no model has an angle."""
    rows = named(tables["drift"])
    shown = largest(rows)
    known, sums = given(ends(shown), "angle_deg"), accumulated(rows)
    if not known:
        return []
    found = [*_streams(known), *_together(sums), *_routing(shown), *_rounding(known), *_alone(sums), *_growth(rows)]
    lost = len(ends(shown)) - len(known)
    return [*found, count(LOST, Evidence("drift", "angle_deg", len(known) + lost), lost)] if lost else found


def _streams(known: Sequence[Row]) -> Iterator[Claim]:
    compressed = [row for row in known if not row["method"].startswith(CAST)]
    for quantity, column, error in ((ANGLE, "angle_deg", "angle_stderr"), (NORM, "norm_ratio", "norm_ratio_stderr")):
        for row in given(compressed, column):
            yield Claim(row["model"], quantity, interval(row[column], row.get(error)), {}, _from(row, column))


def _together(sums: Sequence[Row]) -> Iterator[Claim]:
    for found in sums:
        aligned = found["aligned"] / found["independent"]
        evidence = Evidence("drift", "angle_deg", len(found["alone"]) + 1, {"layer": found["layer"]})
        yield value(found["model"], TOGETHER, evidence, found["over_independent"], in_one_direction=aligned)


def _routing(shown: Sequence[Row]) -> Iterator[Claim]:
    compressed = [row for row in given(shown, "routing_agreement") if not row["method"].startswith(CAST)]
    for model, ours in groups(compressed, "model").items():
        row = min(ours, key=lambda row: float(row["routing_agreement"]))
        evidence = Evidence("drift", "routing_agreement", len(ours), _labels(row))
        yield value(f"{model} at layer {row['layer']}", ROUTING, evidence, row["routing_agreement"])


def _rounding(known: Sequence[Row]) -> Iterator[Claim]:
    for row in known:
        if row["method"].startswith(CAST):
            found = interval(row["angle_deg"], row.get("angle_stderr"))
            yield Claim(row["model"], ROUNDING, found, {}, _from(row, "angle_deg"))


def _alone(sums: Sequence[Row]) -> Iterator[Claim]:
    for quantity, column in ((LOCAL, "local"), (CARRIED, "alone")):
        for found in sums:
            layer, angle = max(found[column].items(), key=lambda item: float(item[1]))
            evidence = Evidence("drift", "angle_deg", len(found[column]), {"scope": ONE})
            yield value(f"{found['model']} at layer {layer}", quantity, evidence, angle)


def _growth(rows: Sequence[Row]) -> Iterator[Claim]:
    for model, (first, *_, last) in growing(rows).items():
        beside = {f"with_layers_{first['compressed_layers']}": first["angle_deg"]}
        yield value(model, GROWTH, _from(last, "angle_deg"), last["angle_deg"], **beside)


def _from(row: Row, column: str) -> Evidence:
    return Evidence("drift", column, 1, {**_labels(row), "layer": row["layer"]})


def _labels(row: Row) -> dict[str, object]:
    return {name: row.get(name) for name in ("method", "ratio", "scope", "compressed_layers", "checkpoint")}
