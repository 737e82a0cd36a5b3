"""Models as points: perplexity and bits of a text, angle and norm ratio of the residual stream."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from diag.verdict.front import undominated
from diag.verdict.loss import Loss
from diag.verdict.models import Compared, Models
from diag.verdict.subjects import has
from diag.verdict.texts import Text

_MOST = 3  # texts


@dataclass(frozen=True)
class Point:
    """A model on a text: `low` to `high` is one standard error of the paired difference to the dense model."""

    loss: Loss
    name: str
    saved: float
    perplexity: float

    @property
    def low(self) -> float:
        """One standard error less."""
        return self.perplexity * math.exp(-(self.loss.stderr or 0.0))

    @property
    def high(self) -> float:
        """One standard error more."""
        return self.perplexity * math.exp(self.loss.stderr or 0.0)


def points(found: Models, text: Text) -> list[Point]:
    """Every compressed model of a text that has a perplexity and known bits, by bits saved."""
    listed = []
    for model in found.models:
        loss = model.losses.get(text)
        value = None if loss is None else loss.perplexity[0]
        if loss is not None and value is not None and loss.bits_saved is not None:
            listed.append(Point(loss, model.name, loss.bits_saved, value))
    return sorted(listed, key=lambda p: (p.saved, p.perplexity, p.name, p.loss.layers))


def front(listed: Sequence[Point]) -> list[Point]:
    """Points that nothing beats, by bits saved; nothing that changes no bits is among them."""
    return undominated([(p.saved, p.perplexity, p) for p in listed if p.saved > 0])[::-1]


def dense_of(found: Models, text: Text) -> float | None:
    """The dense model's perplexity."""
    return found.dense[text].perplexity[0] if text in found.dense else None


def read(found: Models) -> list[Text]:
    """Texts with the dense model that hold most models, in their order."""
    able = [text for text in found.texts if points(found, text) and dense_of(found, text) is not None]
    most = sorted(able, key=lambda text: -len(points(found, text)))[:_MOST]
    return [text for text in able if text in most]


def placed(found: Models) -> list[Compared]:
    """Models whose residual stream was measured, by angle; controls that change nothing are left out."""
    listed = [
        model
        for model in found.models
        if model.end is not None and has(model.end, "angle_deg", "norm_ratio") and not model.loss.is_control
    ]
    return sorted(listed, key=lambda m: ((m.end or {})["angle_deg"], not m.loss.is_published, m.name, m.loss.layers))


def most_read(found: Models) -> Text | None:
    """The text that most models with an angle have a loss on."""
    ours = [model for model in found.models if model.angle_on and not model.loss.is_control]
    counts = [sum(text in model.losses for model in ours) for text in found.texts]
    return found.texts[counts.index(max(counts))] if counts else None
