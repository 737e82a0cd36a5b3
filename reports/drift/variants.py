"""Rows of drift.csv as variants: each a method, ratio and set of layers, with a row a decoder layer."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from reports.methods import method_name
from reports.run import Row, Run, given

ALL, ONE = "all", "one"
CAST = "cast:dtype="


@dataclass
class Variant:
    """`rows` by layer."""

    method: str
    ratio: float | None
    scope: str
    layers: str
    checkpoint: str = ""
    rows: dict[int, Row] = field(default_factory=dict)

    @property
    def is_cast(self) -> bool:
        return self.method.startswith(CAST)

    @property
    def name(self) -> str:
        """Method and ratio, and the folder that a checkpoint was in; without the layers."""
        if self.is_cast:
            return f"dense in {self.method.removeprefix(CAST)}"
        folder = f" ({self.checkpoint})" if self.checkpoint not in ("", self.method) else ""
        return method_name(self.method) + ("" if self.ratio is None else f" at {self.ratio:g}") + folder

    @property
    def size(self) -> int:
        """How many layers are compressed."""
        return len(layers_of(self.layers))

    @property
    def end(self) -> Row | None:
        """The row after the last compressed layer; that of the last layer where it is not known which are."""
        return next((row for row in self.rows.values() if row.get("after_last")), None)


@dataclass(frozen=True)
class Accumulation:
    """Angles after the last compressed layer: of all layers together, and of each compressed alone."""

    name: str
    layer: int
    together: float
    alone: dict[int, float]
    local: dict[int, float]  # of each compressed alone, after itself

    @property
    def root_sum_square(self) -> float:
        """What independent errors would add up to."""
        return math.sqrt(sum(angle**2 for angle in self.alone.values()))

    @property
    def sum(self) -> float:
        """What errors in one direction would add up to."""
        return sum(self.alone.values())


def variants(run: Run) -> list[Variant]:
    """In the order of the rows."""
    found: dict[tuple[str, ...], Variant] = {}
    for row in run["tables"].get("drift", []):
        layers, checkpoint = str(row.get("compressed_layers") or ""), str(row.get("checkpoint") or "")
        key = (row["method"], str(row.get("ratio")), row["scope"], layers, checkpoint)
        if key not in found:
            found[key] = Variant(row["method"], row.get("ratio"), row["scope"], layers, checkpoint)
        found[key].rows[int(row["layer"])] = row
    return list(found.values())


def largest(listed: Iterable[Variant]) -> list[Variant]:
    """Of every method and ratio the largest set of layers compressed together, checkpoints and rounding; by angle."""
    found: dict[tuple[str, str], Variant] = {}
    for variant in listed:
        key = variant.name, variant.checkpoint
        if variant.scope == ALL and (key not in found or variant.size > found[key].size):
            found[key] = variant
    return sorted(found.values(), key=lambda v: (v.is_cast, -_angle(v.end), v.name))


def sets(listed: Iterable[Variant]) -> dict[str, list[Variant]]:
    """By name, where a method was measured with several sets of layers together; smallest first."""
    found: dict[str, list[Variant]] = {}
    for variant in listed:
        if variant.scope == ALL and variant.layers and not variant.checkpoint:
            found.setdefault(variant.name, []).append(variant)
    return {name: sorted(line, key=lambda v: v.size) for name, line in found.items() if len(line) > 1}


def accumulations(listed: Sequence[Variant]) -> list[Accumulation]:
    """Where every layer of a set was compressed alone too."""
    alone = {(v.name, v.layers): v for v in listed if v.scope == ONE}
    found = []
    for variant in largest(listed):
        layers, end = layers_of(variant.layers), variant.end
        singles = {layer: alone.get((variant.name, str(layer))) for layer in layers}
        if len(layers) < 2 or end is None or not given(end, "angle_deg") or variant.checkpoint:
            continue
        rows = {layer: single.rows.get(end["layer"]) for layer, single in singles.items() if single is not None}
        ends = {layer: single.end for layer, single in singles.items() if single is not None}
        angles, local = _angles(rows), _angles(ends)
        if len(angles) == len(layers) == len(local):
            found.append(Accumulation(variant.name, int(end["layer"]), float(end["angle_deg"]), angles, local))
    return found


def layers_of(spans: str) -> list[int]:
    """ "0-2,5" as [0, 1, 2, 5]."""
    found: list[int] = []
    for part in spans.split(",") if spans else ():
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _angles(rows: dict[int, Row | None]) -> dict[int, float]:
    return {
        layer: float(row["angle_deg"]) for layer, row in rows.items() if row is not None and given(row, "angle_deg")
    }


def _angle(row: Row | None) -> float:
    return float(row["angle_deg"]) if row is not None and given(row, "angle_deg") else -1.0
