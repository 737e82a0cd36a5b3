"""Tables of the verdict: every method beside every other, and what the figures show. All are views of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from diag.declare.column import Column, Columns, View
from diag.declare.common_columns import common
from diag.verdict.costs import cost_views
from diag.verdict.evaluations import layers_in_words, pairs, removed
from diag.verdict.loss import MOBE, TDMOE, TOLERANCE, Loss
from diag.verdict.models import ERRORS, Compared, Models
from diag.verdict.points import Point, front, most_read, placed, points, read
from diag.verdict.published import published_views
from diag.verdict.ranks import rank_views
from diag.verdict.subjects import Row, Subject, plain
from reports.formats import listing

NOTE = (
    "The loss above the dense model's is a difference in mean loss on the same windows, ± its paired standard error. "
    "The verdict's intervals against attribution's MoBE are a bootstrap of the two losses paired by window; between "
    "other methods they add the two standard errors, which bounds the error whatever their correlation. RTN and the "
    "controls are yardsticks, at bits of their own. Errors of weights are attribution's, or means over operator's "
    "stacks; angles are drift's, or attribution's, each on its own windows. “What to do instead” names, of the models "
    "that store no more bits than TD-MoE (within 0.5 %) and lose no more than it does at its best, those that none "
    "beats in loss and bits; where two losses are not told apart, the one that saves more bits."
)
TABLES = {
    "verdict": Columns(
        Column("model", "model that the claim is of", form="text"),
        Column("subject", "what of it: a method, a mode, an error, or why it was not measured", form="text"),
        Column("quantity", "what is claimed, by the name that verdict.json has", form="text"),
        Column("value", "the value; a count is among `of`", low="low", high="high"),
        Column("low", "lower end of its 95 % interval"),
        Column("high", "upper end of its 95 % interval"),
        Column("unit", "unit of the value", form="text"),
        Column("of", "what a count is among", form="integer"),
        Column("reference", "what it is to be read beside, name=value", form="text"),
        Column("evidence", "table, column and rows that it was computed from", form="text"),
        Column("strength", "clear or unclear by its interval, estimate without one, count, missing", form="text"),
    )
}  # fmt: skip
_METHOD = Column("title", "the method", "method", form="text")
_LAYERS, _RATIO, _LAYER, _BITS, _SECONDS, _ANGLE = common(
    "compressed_layers", "ratio", "layer", "bits_saved", "seconds", "angle_deg"
)
_ADDED = (
    Column("added", "loss above the dense model's", "above dense", "nats a token", "change", error="added_stderr"),
    Column("added_stderr", "its paired standard error"),
)
_TURNED = (
    _ANGLE.but(error="angle_stderr", label="angle"),
    Column("angle_stderr", "standard error of the angle"),
    Column("norm_ratio", "norm of the residual stream over the dense model's", form="error", error="norm_ratio_stderr"),
    Column("norm_ratio_stderr", "standard error of the norm ratio"),
)
_TEXT = Column("text", "text that the loss is of", form="text")
_PERPLEXITY = (
    Column("perplexity", "perplexity", form="perplexity", error="perplexity_stderr"),
    Column("perplexity_stderr", "standard error of the perplexity"),
)
_SAME = Column("same_experts", "share of a token's experts that stay, at the worst layer", "same experts, least",
               form="percent")  # fmt: skip
_COMPARED = (
    _METHOD,
    _BITS,
    Column("off_median", "stored bits over the median of the methods' of this ratio, less 1", "stored against median",
           form="percent"),
    *common(*ERRORS),
    *_TURNED,
    Column("angle_on", "windows that the angle is a mean over, where they differ", "angle on", form="text"),
    _SAME,
    Column("at_layer", "that layer", "at layer", form="integer"),
    _SECONDS,
)  # fmt: skip
_DENSE = {
    "title": "dense", "bits_saved": 0.0, "angle_deg": 0.0, "norm_ratio": 1.0, "same_experts": 1.0,
    **dict.fromkeys(ERRORS, 0.0),
}  # fmt: skip


def views(subject: Subject, found: Models) -> list[View]:
    """Every table of the verdict that has rows."""
    paired = pairs(subject)
    main = found.main(paired[0].ratio if paired else None)
    listed = [
        *_comparisons(subject, found),
        _front(subject, found),
        _geometry(subject, found),
        _routing(subject, found),
        *rank_views(subject, main),
        *cost_views(subject, found),
        *published_views(subject, found),
    ]
    return [filled(view) for view in listed if view.rows]


def filled(view: View) -> View:
    """A view without columns that only the dense model fills, which the caption names."""
    rows = [row for row in view.rows if row.get("title") != _DENSE["title"]]
    empty = [c for c in view.columns if all(row.get(c.name) in (None, "") for row in rows)]
    lacking = [c.label or c.name.replace("_", " ") for c in empty if not _spoken(c, view.columns) and not _quiet(c)]
    caption = view.caption + (f"; not measured: {listing(lacking)}" if lacking else "")
    gone = {column.name for column in empty}
    columns = [_without(column, gone) for column in view.columns if column.name not in gone]
    return replace(view, caption=caption, columns=columns, keys=tuple(key for key in view.keys if key not in gone))


def _spoken(column: Column, columns: Sequence[Column]) -> bool:
    return any(column.name in (other.error, other.low, other.high, other.baseline) for other in columns)


def _quiet(column: Column) -> bool:
    return column.name in ("off_median", "angle_on", "at_layer", "compressed_layers", "text", "front", "ratio")


def _without(column: Column, gone: set[str]) -> Column:
    parts = {part: "" for part in ("error", "low", "high", "baseline") if getattr(column, part) in gone}
    return column.but(**parts) if parts else column


def _comparisons(subject: Subject, found: Models) -> Iterator[View]:
    """A table a ratio: TD-MoE and MoBE, then the others, then yardsticks."""
    settings = list(found.settings)
    for number, (ratio, layers) in enumerate(settings, 1):
        ours = found.shown(ratio, layers)
        amount = "" if ratio is None else f", {removed(ratio)} removed"
        anchor = subject.anchor("comparison") + (f"-{number}" if len(settings) > 1 else "")
        caption = (
            f"{_what(ours, ratio, layers)}; ± standard errors over windows; angle and norm ratio after the last "
            "compressed layer"
        )
        columns, keys = (*_COMPARED, _TEXT, *_PERPLEXITY, *_ADDED), tuple(column.name for column in _COMPARED)
        title = subject.title(f"Methods at matched bits{amount}")
        yield View(anchor, title, caption, columns, _rows(found, ours), keys, "text")


def _what(ours: Sequence[Compared], ratio: float | None, layers: str) -> str:
    projections = sorted({str(m.loss.row.get("projections") or "") for m in ours if m.loss.ratio == ratio} - {""})
    what = plain(" or ".join(names.replace(",", " and ") for names in projections)) or "the compressed projections"
    where = layers_in_words(layers)
    return f"{what}{where}" if ratio is None else f"{removed(ratio)} of {what}{where} removed"


def _rows(found: Models, ours: Sequence[Compared]) -> list[Row]:
    """A row a model and text, the dense model's first; bits are marked that are off the methods' median."""
    names = {text: name for text, name in found.names.items() if any(text in m.losses for m in ours)}
    stored = [
        m.loss.stored for m in ours if m.ratio is not None and m.loss.stored is not None and not m.loss.is_control
    ]
    middle = median(stored) if len(stored) > 1 else None
    several = len(Counter(m.angle_on for m in ours if m.angle_on)) > 1
    rows: list[Row] = [
        {**_DENSE, "text": name, **_loss(found.dense[text])} for text, name in names.items() if text in found.dense
    ]
    for model in ours:
        about = _about(model, middle, several=several)
        told = [
            {**about, "text": name, **_loss(model.losses[text])} for text, name in names.items() if text in model.losses
        ]
        rows += told or [about]
    return rows


def _about(model: Compared, middle: float | None, *, several: bool) -> dict[str, Any]:
    step = next((loss.step for loss in model.steps if loss.ladder == TDMOE and loss is not model.loss), "")
    told = not step or model.loss.is_published or bool(model.loss.step)
    off = None
    if middle and model.ratio is not None and model.loss.stored is not None:
        off = model.loss.stored / middle - 1
    return {
        "title": model.title + ("" if told else f" (“{plain(step)}”)"),
        "bits_saved": model.loss.bits_saved,
        "off_median": off if off is not None and abs(off) > TOLERANCE else None,
        **{name: model.errors.get(name) for name in ERRORS},
        **turned(model),
        "angle_on": model.angle_on if several else "",
        **({} if model.routed is None else {"same_experts": model.routed[1], "at_layer": model.routed[0]}),
        "seconds": model.of_step("seconds"),
    }


def turned(model: Compared) -> dict[str, Any]:
    """Angle and norm ratio where its residual stream ends."""
    end = model.end or {}
    return {name: end.get(name) for name in ("angle_deg", "angle_stderr", "norm_ratio", "norm_ratio_stderr")}


def _loss(loss: Loss | None) -> dict[str, Any]:
    """Perplexity and added loss, or why there is none."""
    if loss is None:
        return {"status": "not_measured"}
    perplexity, stderr = loss.perplexity
    found: dict[str, Any] = {"perplexity": perplexity, "perplexity_stderr": stderr}
    if loss.measured:
        found |= {"added": loss.damage, "added_stderr": loss.stderr}
    elif not loss.is_dense:
        found["status"] = loss.row.get("status")
    return found


def _front(subject: Subject, found: Models) -> View:
    """Perplexity against bits saved, with what no other measured model beats in both."""
    rows = []
    for text in read(found):
        listed = points(found, text)
        best = {id(point.loss) for point in front(listed)}
        for point in listed:
            chosen = "on the front" if id(point.loss) in best else ""
            rows.append({**_spot(point), "text": found.names[text], **_loss(point.loss), "front": chosen})
    columns = (
        _METHOD, _LAYERS.but(label="layers"), _BITS, _TEXT, _PERPLEXITY[0].but(error=""), *_ADDED,
        Column("front", "whether no other measured model beats it in perplexity and bits", form="text"),
    )  # fmt: skip
    rows.sort(key=lambda row: (row["bits_saved"], row["title"]))
    return View(subject.anchor("pareto"), subject.title("Perplexity against bits saved"),
                "Perplexity and nats a token above the dense model ± paired standard error, by bits saved", columns,
                rows, ("title", "compressed_layers", "bits_saved"), "text", folded=True)  # fmt: skip


def _spot(point: Point) -> dict[str, Any]:
    return {"title": point.name, "compressed_layers": plain(point.loss.layers), "bits_saved": point.loss.bits_saved}


def _geometry(subject: Subject, found: Models) -> View:
    """Ends of the residual stream, by angle."""
    text = most_read(found)
    on = "" if text is None else f" on {found.names[text]}"
    rows = [
        {
            "title": model.name, "compressed_layers": plain(model.loss.layers), "bits_saved": model.loss.bits_saved,
            **turned(model), **_loss(None if text is None else model.losses.get(text)),
        }
        for model in placed(found)
    ]  # fmt: skip
    added = (_ADDED[0].but(label=f"added loss{on}", unit="nats"), _ADDED[1])
    return View(subject.anchor("geometry"), subject.title("Residual stream after the last compressed layer"),
                "After the last compressed layer, by angle: means over tokens ± standard error over windows",
                (_METHOD, _LAYERS.but(label="layers"), _BITS, *_TURNED, *added), rows, folded=True)  # fmt: skip


def _routing(subject: Subject, found: Models) -> View:
    """Share of a token's experts that stay the same, by decoder layer, of TD-MoE and MoBE."""
    panels = routed(found)
    rows = [
        {"ratio": ratio, "layer": layer, "title": model.title, "same": row.get("routing_agreement"),
         "status": row.get("status")}
        for ratio, ours in panels
        for model in ours
        for layer, row in sorted(model.drift.items())
    ]  # fmt: skip
    families = {model.loss.family for _, ours in panels for model in ours}
    lacking = [name for family, name in ((TDMOE, "TD-MoE"), (MOBE, "MoBE")) if family not in families]
    caption = "Share of a token's experts that stay the same, by decoder layer"
    caption += f"; not measured: {listing(lacking)}" if lacking else ""
    columns = (_RATIO, _LAYER, _METHOD, Column("same", "share of experts that stay the same", form="percent"))
    return View(subject.anchor("routing"), subject.title("Routing over depth: TD-MoE against MoBE"), caption, columns,
                rows, ("ratio", "layer"), "title", folded=True)  # fmt: skip


def routed(found: Models) -> list[tuple[float | None, list[Compared]]]:
    """TD-MoE and MoBE with known routing, of the two largest ratios."""
    panels = []
    for ratio, layers in found.settings:
        ours = [m for m in found.at(ratio, layers) if m.loss.family in (TDMOE, MOBE) and m.routed is not None]
        if ours:
            panels.append(
                (ratio, sorted(ours, key=lambda m: (m.loss.family == MOBE, not m.loss.is_published, m.title)))
            )
    return panels[-2:]


def tabled(claims: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Claims as rows of verdict.csv."""
    return [
        {
            **{name: claim.get(name) for name in TABLES["verdict"]},
            "reference": "; ".join(f"{k}={v:.6g}" for k, v in claim["reference"].items() if v is not None),
            "evidence": _evidence(claim["evidence"]),
        }
        for claim in claims
    ]


def _evidence(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    where = ", ".join(f"{name}={value}" for name, value in found["where"].items())
    return f"{found['table']}.{found['column']}, {found['rows']} rows" + (f" ({where})" if where else "")
