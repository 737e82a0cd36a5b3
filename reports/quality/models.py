"""Rows of quality.csv as models: the dense one and its variants, each with a measurement a data set."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from reports.formats import fixed, significant
from reports.methods import method_name
from reports.run import Row, Run, given

PERPLEXITY, ACCURACY = "perplexity", "acc"
MACRO = "macro average"
DENSE = "dense"


@dataclass
class Measured:
    """One model of the run: `rows` by data set."""

    method: str
    ratio: float | None
    layers: str
    bits_saved: float | None
    checkpoint: str = ""
    rows: dict[str, Row] = field(default_factory=dict)

    @property
    def is_dense(self) -> bool:
        return self.method == DENSE and not self.checkpoint

    @property
    def name(self) -> str:
        """Method and ratio, and the folder that a checkpoint was in; without the layers."""
        folder = f" ({self.checkpoint})" if self.checkpoint not in ("", self.method) else ""
        return method_name(self.method) + ("" if self.ratio is None else f" at {self.ratio:g}") + folder


@dataclass(frozen=True)
class Difference:
    """To the dense model on the same windows or documents, with its standard error."""

    value: float
    stderr: float | None

    @property
    def clear(self) -> bool:
        """More than two standard errors from nothing."""
        return self.stderr is not None and abs(self.value) > 2 * self.stderr

    def text(self, places: int, scale: float = 1.0) -> str:
        """`+0.1124 ± 0.0020`; 0 where neither shows."""
        value = fixed(scale * self.value, places, signed=True)
        if self.stderr is None:
            return f"{value}, no error known"
        nothing = round(scale * self.value, places) == 0 == round(scale * self.stderr, places)
        return "0" if nothing else f"{value} ± {fixed(scale * self.stderr, places)}"

    def note(self, places: int, scale: float = 1.0) -> str:
        """In brackets where it may be nothing."""
        said = self.text(places, scale)
        return said if self.clear or self.stderr is None or said == "0" else f"({said})"

    def points(self) -> str:
        """Of an accuracy."""
        return self.text(1, 100)


def models(run: Run) -> list[Measured]:
    """Dense first, then variants by bits saved, then name."""
    found: dict[tuple[str, ...], Measured] = {}
    for row in run["tables"].get("quality", []):
        layers, checkpoint = str(row.get("compressed_layers") or ""), str(row.get("checkpoint") or "")
        key = (row["method"], str(row.get("ratio")), layers, checkpoint)
        if key not in found:
            found[key] = Measured(row["method"], row.get("ratio"), layers, row.get("bits_saved"), checkpoint)
        found[key].rows[row["dataset"]] = row
    return sorted(found.values(), key=lambda m: (not m.is_dense, m.bits_saved or 0.0, m.method, m.ratio or 0.0))


def datasets(listed: Iterable[Measured], metric: str) -> list[str]:
    """Of one metric, in the order of the rows; the macro average last."""
    names = [name for model in listed for name, row in model.rows.items() if row["metric"] == metric]
    found = dict.fromkeys(name for name in names if name != MACRO)
    return [*found, *([MACRO] if MACRO in names else [])]


def difference(row: Row | None) -> Difference | None:
    """Loss in nats for a text, accuracy for a task; None for the dense model and where it was not measured."""
    if row is None:
        return None
    column = "loss_difference_nats" if row["metric"] == PERPLEXITY else "accuracy_difference"
    return Difference(float(row[column]), row.get(f"{column}_stderr")) if given(row, column) else None


def with_error(row: Row, scale: float = 1.0) -> str:
    """A row's value ± its standard error, to two digits of the error."""
    value, stderr = row["value"] * scale, row.get("stderr")
    if stderr is None:
        return significant(value, 5)
    places = 1 - math.floor(math.log10(scale * stderr)) if stderr > 0 else 2
    return f"{fixed(value, max(0, places))} ± {fixed(scale * stderr, max(0, places))}"


def dense_of(listed: Iterable[Measured]) -> Measured | None:
    """The dense model, if it was measured."""
    return next((model for model in listed if model.is_dense), None)
