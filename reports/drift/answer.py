"""The answer in plain words, computed from the rows: nothing is said that a number does not support."""

from collections.abc import Sequence

from reports.drift.variants import Accumulation, Variant, accumulations, largest, sets
from reports.formats import fixed, listing, percent
from reports.run import Row, given

CLOSE = 1.1  # times the root sum square: as independent errors would


def answer(listed: Sequence[Variant]) -> list[str]:
    """Sentences for the top of the page, the most important first."""
    ends = [variant for variant in largest(listed) if _has_angle(variant.end)]
    if not ends:
        return ["No variant was measured, so this run answers nothing yet."]
    methods = [variant for variant in ends if not variant.is_cast]
    said = [_angles(methods), *(_accumulated(found) for found in accumulations(listed))]
    said += [_routing(methods), _schedule(listed), _floor([variant for variant in ends if variant.is_cast])]
    unmeasured = [variant for variant in largest(listed) if not _has_angle(variant.end)]
    if unmeasured:
        said.append(f"{listing([v.name for v in unmeasured])}: the stream is not finite there, so it has no angle.")
    return [sentence for sentence in said if sentence]


def degrees(row: Row) -> str:
    """Angle ± its standard error."""
    stderr = f" ± {_angle(row['angle_stderr'])}" if given(row, "angle_stderr") else ""
    return f"{_angle(row['angle_deg'])}{stderr}°"


def _angle(value: float) -> str:
    return fixed(value, 2 if value < 10 else 1)


def _angles(methods: Sequence[Variant]) -> str:
    """What the paper's figure shows: angle and norm ratio after the last compressed layer."""
    parts = []
    for variant in methods:
        row = variant.end
        assert row is not None, "chosen by it"
        saved = f", saving {percent(row['bits_saved'])} of the bits" if given(row, "bits_saved") else ""
        parts.append(
            f"{variant.name} turns the residual stream by {degrees(row)} after layer {row['layer']} and leaves it "
            f"{fixed(row['norm_ratio'], 3)} times as long{saved}"
        )
    return "; ".join(parts) + "." if parts else ""


def _accumulated(found: Accumulation) -> str:
    most = max(found.alone, key=lambda layer: found.alone[layer])
    least, greatest = (choose(found.local, key=lambda layer: found.local[layer]) for choose in (min, max))
    if found.together > CLOSE * found.sum:
        verdict = "it is more than the errors of single layers can add up to: layers make each other's errors worse"
    elif found.together > CLOSE * found.root_sum_square:
        verdict = "it is more than independent errors would give: they accumulate in common directions"
    elif found.together * CLOSE < found.root_sum_square:
        verdict = "it is less than independent errors would give: they overlap"
    else:
        verdict = "it is what independent errors of single layers would give"
    return (
        f"{found.name}, local against accumulated: a layer compressed alone turns the stream at its output by "
        f"{_angle(found.local[least])}° (layer {least}) to {_angle(found.local[greatest])}° (layer {greatest}). "
        f"Carried on to layer {found.layer}, these come to {_angle(found.root_sum_square)}° if they are independent "
        f"(root sum square) and to {_angle(found.sum)}° if they all turn one way. Together the layers turn it by "
        f"{_angle(found.together)}°: {verdict}. Layer {most} alone turns it by {_angle(found.alone[most])}°."
    )


def _routing(methods: Sequence[Variant]) -> str:
    """Where the variants' tokens go to other experts."""
    parts = []
    for variant in methods:
        rows = [row for row in variant.rows.values() if given(row, "routing_agreement")]
        if rows:
            row = min(rows, key=lambda r: float(r["routing_agreement"]))
            parts.append(
                f"with {variant.name} a token keeps {percent(row['routing_agreement'])} of its experts at layer "
                f"{row['layer']}, where it keeps fewest"
                + (f" (Jensen-Shannon distance {fixed(row['routing_js'], 3)})" if given(row, "routing_js") else "")
            )
    return f"Routing: {listing(parts)}." if parts else ""


def _schedule(listed: Sequence[Variant]) -> str:
    parts = []
    for name, line in sets(listed).items():
        first, last = line[0].end, line[-1].end
        if first is not None and last is not None and _has_angle(first) and _has_angle(last):
            layers = "layer" if line[0].size == 1 else "layers"
            parts.append(
                f"{name} from {degrees(first)} with {line[0].size} {layers} to {degrees(last)} with {line[-1].size}"
            )
    return f"Over growing sets of layers: {listing(parts)}." if parts else ""


def _floor(casts: Sequence[Variant]) -> str:
    parts = [
        f"running the {name} alone turns the stream by {degrees(row)} after layer {row['layer']}"
        for variant in casts
        if (row := variant.end) is not None and (name := variant.name.replace("dense", "dense model"))
    ]
    return f"Rounding: {listing(parts)}; an angle as small as that says nothing about a method." if parts else ""


def _has_angle(row: Row | None) -> bool:
    return row is not None and given(row, "angle_deg")
