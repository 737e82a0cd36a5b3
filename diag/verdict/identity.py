"""Identity of the compressed model that a row is about, whichever command wrote it.

Where both of two rows have an id (column `variant`), that alone decides. Otherwise they are of the same model when
method, ratio and checkpoint are the same and nothing that both say differs: layers, projections, calibration, seed,
stored bits. Where one of them does not say one of the first four, the stored bits decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from diag.verdict.loss import Loss
from diag.verdict.subjects import Run, plain
from reports.formats import listing
from reports.theme import order

_SAME_BITS = 1e-6  # of the bits saved
_TOLD = ("projections", "calibration", "seed")
_USUAL = {"window": None, "weighting": "count"}  # of a calibration


@dataclass(frozen=True)
class Facts:
    """Facts of how a model was made; None where that is not known."""

    layers: str | None = None
    projections: str | None = None
    calibration: str | None = None  # nothing for a method that needs none
    seed: str | None = None  # nothing for a checkpoint, whose weights no seed of the run changes

    @property
    def values(self) -> list[str | None]:
        """All of them, in their order."""
        return [getattr(self, field.name) for field in fields(self)]


@dataclass(frozen=True)
class Identity:
    """All that tells one compressed model from another."""

    method: str
    ratio: float | None
    checkpoint: str
    bits_saved: float | None
    facts: Facts
    variant: str = ""

    def is_same(self, other: Identity) -> bool:
        """Tell whether both can only be one model."""
        if self.variant and other.variant:
            return self.variant == other.variant
        if not self.is_made_alike(other):
            return False
        if self.bits_saved is None or other.bits_saved is None:
            return None not in self.facts.values + other.facts.values
        return abs(self.bits_saved - other.bits_saved) <= _SAME_BITS

    def is_made_alike(self, other: Identity) -> bool:
        """Tell whether nothing that both say of how they were made differs."""
        if (self.method, self.ratio, self.checkpoint) != (other.method, other.ratio, other.checkpoint):
            return False
        return all(
            None in pair or pair[0] == pair[1] for pair in zip(self.facts.values, other.facts.values, strict=True)
        )

    def joined(self, other: Identity) -> Identity:
        """Join what both know."""
        pairs = zip(fields(Facts), self.facts.values, other.facts.values, strict=True)
        facts = Facts(**{field.name: theirs if ours is None else ours for field, ours, theirs in pairs})
        bits = other.bits_saved if self.bits_saved is None else self.bits_saved
        return replace(self, bits_saved=bits, facts=facts, variant=self.variant or other.variant)


def identity_of(loss: Loss, run: Run) -> Identity:
    """Identity from a row and the settings of its run."""
    projections = ",".join(sorted(loss.projections))
    made = loss.row.get("calibration")
    calibration = None if made is None or (loss.checkpoint and not made) else str(made)
    if calibration and not loss.checkpoint:
        calibration = ", ".join([calibration, *_collected(run)])
    seed = "" if loss.checkpoint else str(run["seed"])
    facts = Facts(loss.layers or None, projections or None, calibration, seed)
    variant = str(loss.row.get("variant") or "")
    return Identity(loss.method, loss.ratio, loss.checkpoint, loss.bits_saved, facts, variant)


def apart(listed: Sequence[Identity]) -> list[str]:
    """Differences of each from most: projections, calibration, seed; nothing for most."""
    usual = Facts(**{name: _most([getattr(one.facts, name) for one in listed]) for name in _TOLD})
    return [", ".join(_told(one.facts, usual)) for one in listed]


def _collected(run: Run) -> list[str]:
    """Ways in which statistics were collected, beyond text and tokens, where not as usual."""
    config = run["config"]
    held = config.get("calibration")
    found = held if isinstance(held, dict) else {name: config.get(f"calibration {name}") for name in _USUAL}
    return [f"{name} {found[name]}" for name, usual in _USUAL.items() if found.get(name) not in (None, usual)]


def _told(facts: Facts, usual: Facts) -> list[str]:
    told = []
    if facts.projections and facts.projections != usual.projections:
        told.append(listing(sorted(facts.projections.split(","), key=order)))
    if facts.calibration and facts.calibration != usual.calibration:
        told.append(facts.calibration)
    if facts.seed and facts.seed != usual.seed:
        told.append(f"seed {facts.seed}")
    return [plain(part) for part in told]


def _most(values: Sequence[str | None]) -> str | None:
    """The most frequent one that says something, of equally many the first."""
    counts = Counter(value for value in values if value)
    return max(counts, key=lambda value: counts[value], default=None)
