"""Every compressed model that any run measured, with all that is known of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from reports.drift.variants import Variant
from reports.formats import counted
from reports.quality.answer import count_layers
from reports.run import Row, given
from reports.verdict.identity import Identity
from reports.verdict.losses import COMBINATION, MOBE, TDMOE, Loss
from reports.verdict.protocol import Column, column_names
from reports.verdict.subjects import plain

ERRORS = ("weight_error", "functional_error", "operator_error")


@dataclass
class Compared:
    """One model. `errors` are its own where `attribution` measured them, otherwise means over stacks of `operator`.

    `apart` is what tells it from the others of the page, in words.
    """

    loss: Loss
    ratio: float | None  # that it is compared at
    identity: Identity
    apart: str = ""
    losses: dict[Column, Loss] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    errors_of: str = ""
    worst: float | None = None  # expert's operator error, mean over stacks; of `operator`
    shares: list[float] = field(default_factory=list)  # of the dense bits that its stacks store; of `operator`
    ranks: str = ""  # as `operator` has them, `projection:ranks` one after the other
    drift: Variant | None = None
    steps: list[Loss] = field(default_factory=list)

    @property
    def end(self) -> Row | None:
        """Where its residual stream ends: of `drift`, otherwise of `attribution`."""
        row = self.drift.end if self.drift is not None else None
        if row is not None and given(row, "angle_deg"):
            return row
        return next((step.row for step in self.steps if given(step.row, "angle_deg")), row)

    @property
    def routed(self) -> tuple[int, float] | None:
        """(layer, share of a token's experts that stay the same) where that is least."""
        rows = self.drift.rows.values() if self.drift is not None else ()
        found = [(float(r["routing_agreement"]), int(r["layer"])) for r in rows if given(r, "routing_agreement")]
        return None if not found else (min(found)[1], min(found)[0])

    @property
    def seconds(self) -> float | None:
        """That compressing took."""
        return next((float(step.row["seconds"]) for step in self.steps if given(step.row, "seconds")), None)

    @property
    def title(self) -> str:
        """Unique among those of its ratio and layers."""
        return self.loss.title + (f" ({self.apart})" if self.apart else "")

    @property
    def name(self) -> str:
        """With its ratio."""
        return self.title + ("" if self.loss.ratio is None else f" at {self.loss.ratio:g}")

    @property
    def bits_saved(self) -> float | None:
        return self.loss.bits_saved

    @property
    def angle_on(self) -> str:
        """Which windows its angle is a mean over; nothing where there is none."""
        row = self.end or {}
        if not given(row, "angle_deg"):
            return ""
        parts = [str(row.get("text") or ""), counted(int(row["windows"]), "window") if given(row, "windows") else ""]
        return plain(", ".join(part for part in parts if part))


@dataclass
class Comparison:
    """All of a model's: the columns in order, the dense model, and the compressed ones."""

    columns: list[Column]
    dense: dict[Column, Loss]
    models: list[Compared]
    leading: set[int] = field(default_factory=set)  # ids of the losses that the verdict is about

    @property
    def names(self) -> dict[Column, str]:
        """Of the columns, no two alike."""
        return column_names(self.columns)

    def damage(self, model: Compared) -> tuple[int, float]:
        """To sort by: its loss in the first column that it was measured in; those of another column come after."""
        for place, column in enumerate(self.columns):
            loss = model.losses.get(column)
            if loss is not None and loss.measured:
                return place, loss.damage
        return len(self.columns), 0.0

    def leads(self, model: Compared) -> bool:
        """Whether it is no mere step of a ladder: in a table of its own right, or one end of a duel."""
        rungs = {id(step) for step in model.steps if step.ladder in (TDMOE, COMBINATION, MOBE)}
        mere = bool(model.losses) and all(id(loss) in rungs for loss in model.losses.values())
        return not mere or bool(rungs & self.leading)

    def at(self, ratio: float | None, layers: str) -> list[Compared]:
        """Those of a ratio and set of layers, and those whose storage is their own."""
        return [m for m in self.models if m.ratio in (ratio, None) and m.loss.layers in (layers, "")]


def settings(found: Comparison) -> Iterator[tuple[float | None, str]]:
    """(ratio, layers) of every table: of each ratio the largest set of layers; without any ratio one for all."""
    ratios = sorted({m.ratio for m in found.models if m.ratio is not None})
    for ratio in ratios:
        layers = [m.loss.layers for m in found.models if m.ratio == ratio]
        yield ratio, max(layers, key=count_layers)
    if not ratios and found.models:
        yield None, max((m.loss.layers for m in found.models), key=count_layers)
