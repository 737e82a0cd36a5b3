"""Figures of the verdict: perplexity against bits, angle against norm ratio, routing over depth."""

from __future__ import annotations

from collections.abc import Sequence

from diag.statistics.medians import given
from diag.verdict.columns import routed
from diag.verdict.evaluations import removed
from diag.verdict.loss import Loss
from diag.verdict.models import Compared, Models
from diag.verdict.points import Point, dense_of, front, most_read, placed, points, read
from diag.verdict.subjects import Subject, number, plain
from reports.formats import listing, measured
from reports.plots import Level, Panel, Panels, Plot, Scatter, Series

_LEAST_LOSS = 1e-3  # nats; below it the colour is that of this one
_LABELLED = 40  # markers that are labelled at most
_TOLD = 8  # names in a caption


def figures(subject: Subject, found: Models) -> list[Plot]:
    """Figures of everything that was measured."""
    made = (pareto(subject, found), geometry(subject, found), routing(subject, found))
    return [plot for plot in made if plot is not None]


def kind(loss: Loss) -> str:
    """The name that theme and legend know: published, control, or the method."""
    return "published" if loss.is_published else "control" if loss.is_control else plain(loss.family)


def pareto(subject: Subject, found: Models) -> Panels | None:
    """A panel a text, with the front and one method's ratios joined."""
    texts = read(found)
    if not texts:
        return None
    told = [f"on {found.names[text]}: {_named(front(points(found, text)))}" for text in texts]
    anchor = subject.anchor("pareto")
    return Panels(
        anchor, "Perplexity against bits saved",
        "Perplexity (lower is better, logarithmic) against the share of stored bits saved. Dashed: the dense model. "
        f"Stepped line: the front, what no other measured model beats in both; {'; '.join(told)}. Bars: one standard "
        "error of the paired difference to the dense model. A dotted line joins one method's ratios.",
        panels=[_panel(found.names[text], points(found, text), dense_of(found, text)) for text in texts],
        x="bits saved, %", y="perplexity", log="y", same="x", view=anchor,
    )  # fmt: skip


def geometry(subject: Subject, found: Models) -> Scatter | None:
    """Figure 5 of *Rethinking*: a model is a marker, its area the bits saved, its colour the loss that it adds."""
    models = placed(found)
    if not models:
        return None
    text = most_read(found)
    on = "" if text is None else f" on {found.names[text]}"
    several = len({m.loss.ratio for m in models if m.loss.ratio is not None}) > 1 and len(models) <= _LABELLED
    by_kind: dict[str, Series] = {}
    for name in dict.fromkeys(kind(model.loss) for model in models):
        ours = [model for model in models if kind(model.loss) == name]
        losses = [None if text is None else model.losses.get(text) for model in ours]
        by_kind[name] = Series(
            [(m.end or {})["angle_deg"] for m in ours], [(m.end or {})["norm_ratio"] for m in ours], name, line="none",
            texts=[f"{m.loss.ratio:g}" if several and m.loss.ratio is not None else "" for m in ours],
            sizes=[m.loss.bits_saved or 0.0 for m in ours],
            shades=[max(x.damage, _LEAST_LOSS) if x is not None and x.measured else None for x in losses],
        )  # fmt: skip
    least, most = models[0], models[-1]
    ends = [f"{m.name} {word}, by {measured(number(m.end or {}, 'angle_deg'), 'angle')}"
            for m, word in ((least, "turns it least"), (most, "most"))]  # fmt: skip
    anchor = subject.anchor("geometry")
    return Scatter(
        anchor, "Residual stream after the last compressed layer",
        f"Angle to the dense model's residual stream and ratio of norms, all chosen layers compressed together; "
        f"{', '.join(ends)}. Area: bits saved. Colour: added loss{on or ' (not measured)'}, white where it was not.",
        panels=[Panel("", list(by_kind.values()), [Level(1.0, "dense", "dense")])],
        x="angle, °", y="norm ratio", zero="x", scale=f"added loss, nats{on}", sizes="bits saved", view=anchor,
    )  # fmt: skip


def routing(subject: Subject, found: Models) -> Panels | None:
    """A panel a ratio."""
    panels = routed(found)
    if not panels:
        return None
    told = []
    for ratio, ours in panels:
        least = [f"{m.title} at layer {m.routed[0]}, {measured(m.routed[1], 'percent')}" for m in ours if m.routed]
        told.append(f"{listing(least)}{'' if ratio is None else f' (at {ratio:g})'}")
    anchor = subject.anchor("routing")
    return Panels(
        anchor, "Routing over depth",
        "Share of a token's experts that the dense model chooses too, mean over tokens, all chosen layers compressed "
        f"together (100 % is no change). Fewest stay the same with {'; '.join(told)}.",
        panels=[
            Panel("" if ratio is None else f"{removed(ratio)} removed", [_routed(m) for m in ours],
                  [Level(100.0, "", "dense")])
            for ratio, ours in panels
        ],
        x="decoder layer", y="same experts, %", whole="x", view=anchor,
    )  # fmt: skip


def _routed(model: Compared) -> Series:
    rows = given((row for _, row in sorted(model.drift.items())), "routing_agreement")
    shares = [100 * row["routing_agreement"] for row in rows]
    name = "published" if model.loss.is_published else plain(model.loss.method)  # whose variants differ in dash
    return Series([row["layer"] for row in rows], shares, name, model.title)


def _panel(title: str, listed: Sequence[Point], dense: float | None) -> Panel:
    """Points of each kind, ratios of one method joined, and the front."""
    best = front(listed)
    found = []
    if best:
        steps = [p.perplexity for p in best]
        places = [0.0, *(100 * p.saved for p in best)]
        found.append(Series(places, [*steps, steps[-1]], "value", "front", "steps", "no"))
    for name in dict.fromkeys(kind(p.loss) for p in listed):
        ours = [p for p in listed if kind(p.loss) == name]
        found.append(
            Series([100 * p.saved for p in ours], [p.perplexity for p in ours], name, line="none",
                   low=[p.low for p in ours], high=[p.high for p in ours])
        )  # fmt: skip
    for line in _ratios(listed):
        found.append(
            Series([100 * p.saved for p in line], [p.perplexity for p in line], kind(line[0].loss), "", "dotted", "no")
        )
    levels = [] if dense is None else [Level(dense, "dense", "dense")]
    return Panel(title, found, levels, note=f"dense {measured(dense, 'perplexity')}")


def _ratios(listed: Sequence[Point]) -> list[list[Point]]:
    """Several ratios of one method over the same layers."""
    found: dict[tuple[str, str, str], list[Point]] = {}
    for point in listed:
        if point.loss.ratio is not None:
            series = point.name.rpartition(" at ")[0]
            found.setdefault((series, point.loss.method, point.loss.layers), []).append(point)
    return [series for series in found.values() if len({p.loss.ratio for p in series}) > 1]


def _named(best: Sequence[Point]) -> str:
    names = [p.name for p in best]
    rest = len(names) - _TOLD
    return listing(names[:_TOLD] + ([f"{rest} more"] if rest > 0 else [])) if names else "none"
