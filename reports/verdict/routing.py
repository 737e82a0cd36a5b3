"""Over depth: which share of a token's experts stays the same under TD-MoE and under MoBE."""

from collections.abc import Sequence

from matplotlib.ticker import MaxNLocator

from reports.drawing import Figure, canvas, plain_numbers, style, svg
from reports.formats import EMPTY, listing, percent
from reports.run import Row, given
from reports.sections import Block
from reports.tables import Cell, Table, status_of
from reports.verdict.arenas import removed
from reports.verdict.compared import Compared, Comparison, settings
from reports.verdict.drifted import Variant
from reports.verdict.look import in_order, legend, lines_of, look, panel, signed
from reports.verdict.losses import MOBE, TDMOE
from reports.verdict.subjects import Subject

_PANEL, _GAP, _ABOVE, _BELOW = 1.5, 0.42, 0.3, 0.5  # inches
_MANY = 24  # layers from which on lines have no markers
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)))  # of the models of one family
_MOST = 2  # ratios

Panel = tuple[float | None, list[Compared]]


def routing_block(subject: Subject, found: Comparison) -> Block | None:
    """A panel a ratio; None where no routing was measured."""
    panels = [(ratio, ours) for ratio, layers in settings(found) if (ours := _routed(found.at(ratio, layers)))]
    panels = panels[-_MOST:]
    if not panels:
        return None
    with style():
        drawn = _draw(subject.name, panels)
    said = "; ".join(_said(*one) for one in panels)
    anchor = subject.anchor("routing")
    figure = Figure(
        name=anchor,
        title="Routing over depth",
        alt=f"Share of a token's experts that stay the same, over decoder layers. {said}.",
        caption=(
            "Share of a token's experts that the dense model chooses too, mean over tokens, all chosen layers "
            f"compressed together (100 % is no change). {said}."
        ),
        svg=drawn,
    )
    title = subject.title("Routing over depth: TD-MoE against MoBE")
    return Block(anchor, title, _table(panels), text=_missing(panels), figure=figure, folded=True)


def _routed(models: Sequence[Compared]) -> list[Compared]:
    ours = [m for m in models if m.loss.family in (TDMOE, MOBE) and m.routed is not None]
    return sorted(ours, key=lambda m: (m.loss.family == MOBE, not m.loss.is_published, m.title))


def _said(ratio: float | None, ours: Sequence[Compared]) -> str:
    parts = []
    for model in ours:
        layer, share = model.routed or (0, 0.0)
        parts.append(f"{model.title} keeps fewest at layer {layer}, {percent(share)}")
    return f"{'' if ratio is None else f'At {ratio:g}: '}{listing(parts)}"


def _missing(panels: Sequence[Panel]) -> str:
    families = {m.loss.family for _, ours in panels for m in ours}
    lacking = [name for family, name in ((TDMOE, "TD-MoE"), (MOBE, "MoBE")) if family not in families]
    return f"{listing(lacking)}: not measured." if lacking else ""


def _rows(model: Compared) -> list[Row]:
    drift: Variant | None = model.drift
    rows = drift.rows if drift is not None else {}
    return [rows[layer] for layer in sorted(rows)]


def _draw(model: str, panels: Sequence[Panel]) -> bytes:
    looks = in_order(look(m.loss) for _, ours in panels for m in ours)
    above = _ABOVE + lines_of(len(looks)) + 0.24
    figure = canvas(above + len(panels) * _PANEL + (len(panels) - 1) * _GAP + _BELOW)
    for number, (ratio, ours) in enumerate(panels):
        axes = panel(figure, _BELOW + (len(panels) - 1 - number) * (_PANEL + _GAP), _PANEL)
        if number:
            axes.sharex(figure.axes[0])  # whose layers are not labelled
        seen = dict.fromkeys(looks, 0)
        for compared in ours:
            one = look(compared.loss)
            rows = [row for row in _rows(compared) if given(row, "routing_agreement")]
            axes.plot(
                [row["layer"] for row in rows], [100 * row["routing_agreement"] for row in rows], color=one.colour,
                marker=one.marker if len(rows) < _MANY else "", markersize=one.size - 1, linewidth=1.4,
                linestyle=_DASHES[seen[one] % len(_DASHES)],
            )  # fmt: skip
            seen[one] += 1
        axes.axhline(100, color="#888888", linewidth=0.8, zorder=1)
        axes.set_ylabel("same experts, %")
        axes.set_title("" if ratio is None else f"{removed(ratio)} removed", loc="left", pad=3)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(plain_numbers())
        axes.tick_params(labelbottom=number == len(panels) - 1)
    axes.set_xlabel("decoder layer")
    legend(figure, [one.handle() for one in looks], _ABOVE)
    signed(figure, model)
    return svg(figure)


def _table(panels: Sequence[Panel]) -> Table:
    models = [(ratio, model) for ratio, ours in panels for model in ours]
    layers = sorted({int(row["layer"]) for _, model in models for row in _rows(model)})
    lines = []
    for layer in layers:
        cells = [Cell(str(layer))]
        for _, model in models:
            row = next((row for row in _rows(model) if int(row["layer"]) == layer), {})
            known = given(row, "routing_agreement")
            cells.append(Cell(percent(row["routing_agreement"])) if known else Cell(EMPTY, status_of(row)))
        lines.append(cells)
    headings = ["layer", *(model.title for _, model in models)]
    groups = [
        ("", 1),
        *(("" if ratio is None else f"{removed(ratio)} removed", len(ours)) for ratio, ours in panels),
    ]
    return Table("Share of a token's experts that stay the same, by decoder layer", headings, lines, groups=groups)
