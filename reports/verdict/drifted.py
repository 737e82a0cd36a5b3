"""Rows of drift.csv as compressed models, each with its rows by layer."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from reports.run import Row


@dataclass
class Variant:
    """A method, ratio and set of layers that are compressed together; `rows` by layer."""

    method: str
    ratio: float | None
    layers: str
    checkpoint: str = ""
    rows: dict[int, Row] = field(default_factory=dict)

    @property
    def end(self) -> Row | None:
        """The row after the last compressed layer; that of the last layer where it is not known which are."""
        return next((row for row in self.rows.values() if row.get("after_last")), None)


def compressed(rows: Iterable[Row]) -> list[Variant]:
    """Those with all layers together, in the order of the rows; not the dense model in another dtype."""
    found: dict[tuple[str, ...], Variant] = {}
    for row in rows:
        if row["scope"] != "all" or row["method"].startswith("cast:"):
            continue
        layers, checkpoint = str(row.get("compressed_layers") or ""), str(row.get("checkpoint") or "")
        key = (row["method"], str(row.get("ratio")), layers, checkpoint)
        variant = found.setdefault(key, Variant(row["method"], row.get("ratio"), layers, checkpoint))
        variant.rows[int(row["layer"])] = row
    return list(found.values())
