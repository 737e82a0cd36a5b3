"""Quality against bits saved: a panel a data set, the dense model as a line, a marker a variant.

Error bars are of the paired difference to the dense model: what makes a text hard for both is not in them.
"""

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from reports.drawing import COLOURS, NULL_GREY, WIDTH, Figure, canvas, label, plain_numbers, style, svg
from reports.formats import fixed, percent, significant
from reports.methods import method_name
from reports.quality.models import (
    ACCURACY,
    MACRO,
    PERPLEXITY,
    Measured,
    datasets,
    dense_of,
    difference,
    models,
)
from reports.run import Row, Run

PERPLEXITY_FIGURE = "quality-perplexity"
ACCURACY_FIGURE = "quality-accuracy"
_PANEL, _GAP, _ABOVE, _BELOW, _LINE = 1.55, 0.42, 0.34, 0.5, 0.17  # inches
_LEFT, _RIGHT = 0.72, 0.12
_MARKERS = "osD^vP*X<>"
_LEAST = 0.02  # of its value, what an axis shows at least: a smaller difference is none to look at
_DECADES = 0.6  # of perplexity from which on its axis is logarithmic


def quality_figures(run: Run) -> list[Figure]:
    """Perplexity and accuracy, each where a variant was measured beside the dense model."""
    listed = models(run)
    drawn = []
    with style():
        texts = [name for name in datasets(listed, PERPLEXITY) if _comparable(listed, name)]
        if texts:
            drawn.append(_perplexity(run["model"], listed, texts))
        tasks = [name for name in datasets(listed, ACCURACY) if _comparable(listed, name)]
        if tasks:
            drawn.append(_accuracy(run["model"], listed, [MACRO] if MACRO in tasks else tasks))
    return drawn


def _comparable(listed: Sequence[Measured], name: str) -> bool:
    dense = dense_of(listed)
    return bool(dense and _finite(dense.rows.get(name))) and any(
        _finite(model.rows.get(name)) and model.bits_saved is not None for model in listed if not model.is_dense
    )


def _finite(row: Row | None) -> bool:
    return row is not None and row.get("value") is not None and math.isfinite(row["value"])


def _perplexity(model: str, listed: list[Measured], texts: list[str]) -> Figure:
    return Figure(
        name=PERPLEXITY_FIGURE,
        title="Perplexity against bits saved",
        alt=_alt("Perplexity", listed, texts, lambda value: significant(value, 4)),
        caption=(
            "Perplexity (lower is better) against the share of stored bits saved, over all parameters but the input "
            "embeddings. Dashed line: the dense model. Bars: one standard error of the paired difference to the dense "
            "model on the same windows. Lines join one method's ratios, or one method and ratio over growing sets of "
            "layers."
        ),
        svg=_draw(model, listed, texts, "perplexity", _perplexity_bar, logarithmic=True),
    )


def _accuracy(model: str, listed: list[Measured], tasks: list[str]) -> Figure:
    return Figure(
        name=ACCURACY_FIGURE,
        title="Zero-shot accuracy against bits saved",
        alt=_alt("Accuracy", listed, tasks, percent),
        caption=(
            "Zero-shot accuracy in per cent (higher is better) against the share of stored bits saved. Dashed line: "
            "the dense model. Bars: one standard error of the paired difference to it on the same documents."
        ),
        svg=_draw(model, listed, tasks, "accuracy, %", _accuracy_bar, logarithmic=False),
    )


Series = dict[str, list[Measured]]
Bar = Callable[[Row], tuple[float, float, float]]  # value, how far the bar reaches down, and up


def _perplexity_bar(row: Row) -> tuple[float, float, float]:
    found, value = difference(row), float(row["value"])
    if found is None or found.stderr is None:
        return value, 0.0, 0.0
    return value, value * -math.expm1(-found.stderr), value * math.expm1(found.stderr)


def _accuracy_bar(row: Row) -> tuple[float, float, float]:
    found = difference(row)
    reach = 100 * found.stderr if found is not None and found.stderr is not None else 0.0
    return 100 * float(row["value"]), reach, reach


def _series(listed: Sequence[Measured]) -> Series:
    """What a line joins: a method's ratios where the layers are the same, otherwise a method and ratio."""
    variants = [model for model in listed if not model.is_dense and model.bits_saved is not None]
    growing = len({model.layers for model in variants if model.ratio is not None}) > 1
    found: Series = {}
    for model in variants:
        found.setdefault(model.name if growing else method_name(model.method), []).append(model)
    return found


def _draw(model: str, listed: list[Measured], names: list[str], unit: str, bar: Bar, *, logarithmic: bool) -> bytes:
    series = _series(listed)
    legend = _LINE * (len(series) + 1) + 0.06
    height = _ABOVE + legend + len(names) * _PANEL + (len(names) - 1) * _GAP + _BELOW
    figure = canvas(height)
    panels: list[Axes] = []
    for number, name in enumerate(names):
        bottom = _BELOW + (len(names) - 1 - number) * (_PANEL + _GAP)
        axes = figure.add_axes((_LEFT / WIDTH, bottom / height, (WIDTH - _LEFT - _RIGHT) / WIDTH, _PANEL / height))
        seen = _panel(axes, listed, series, name, bar)
        axes.set_title(label(name, 40), loc="left", pad=3)
        axes.set_ylabel(unit)
        _scale(axes, seen, logarithmic=logarithmic)
        axes.set_xlim(*_limits([m.bits_saved or 0.0 for line in series.values() for m in line]))
        axes.tick_params(labelbottom=number == len(names) - 1)
        panels.append(axes)
    panels[-1].set_xlabel("bits saved, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(0.03, 1 - (_ABOVE - 0.06) / height), frameon=False,
        borderpad=0, handlelength=2.2, labelspacing=0.3,
    )  # fmt: skip
    figure.text(0.97, 1 - 0.09 / height, label(model, 40), fontsize=7.5, color="#555555", va="top", ha="right")
    return svg(figure)


def _panel(axes: Axes, listed: Sequence[Measured], series: Series, name: str, bar: Bar) -> list[float]:
    """Draw one data set; returns the heights that have to be in view."""
    dense = dense_of(listed)
    assert dense is not None, "compared with it"
    level, _, _ = bar(dense.rows[name])
    axes.axhline(level, color=NULL_GREY, linewidth=1.1, linestyle=(0, (4, 2)), label="dense", zorder=2)
    seen = [level]
    for number, (title, line) in enumerate(series.items()):
        shown = [model for model in line if _finite(model.rows.get(name))]
        points = [bar(model.rows[name]) for model in shown]
        axes.errorbar(
            [100 * (model.bits_saved or 0.0) for model in shown], [value for value, _, _ in points],
            yerr=[[low for _, low, _ in points], [high for _, _, high in points]],
            color=COLOURS[number % len(COLOURS)], marker=_MARKERS[number % len(_MARKERS)], markersize=4.5,
            linewidth=1.4, elinewidth=1, capsize=2.5, label=label(title, 46), zorder=3,
        )  # fmt: skip
        seen += [end for value, low, high in points for end in (value - low, value + high)]
    return seen


def _limits(saved: Sequence[float]) -> tuple[float, float]:
    low, high = 100 * min(0.0, *saved), 100 * max(0.0, *saved)
    room = 0.04 * max(high - low, 1.0)
    return low - room, high + room


def _scale(axes: Axes, seen: Sequence[float], *, logarithmic: bool) -> None:
    low, high = min(seen), max(seen)
    if logarithmic and math.log10(high / low) > _DECADES:
        axes.set(yscale="log", ylim=(low / 1.15, high * 1.15))
        decades = math.log10(high / low)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,), numticks=9))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        room = max(0.08 * (high - low), 0.5 * (_LEAST * abs(high) - (high - low)), 1e-9)
        axes.set_ylim(low - room, high + room)
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(plain_numbers())


def _alt(what: str, listed: Sequence[Measured], names: Sequence[str], text: Callable[[float], str]) -> str:
    said = []
    for name in names:
        values = [
            f"{model.name}{f' layers {model.layers}' if model.layers else ''} {text(model.rows[name]['value'])}"
            f" ({'saves ' + percent(model.bits_saved) if not model.is_dense else 'as it is'})"
            for model in listed
            if _finite(model.rows.get(name))
        ]
        said.append(f"{label(name, 40)}: {fixed_list(values)}")
    return f"{what} against bits saved. {'; '.join(said)}."


def fixed_list(values: Sequence[str], most: int = 12) -> str:
    """The first values in words, and how many there are beside them."""
    rest = len(values) - most
    return ", ".join(values[:most]) + (f" and {fixed(rest, 0)} more" if rest > 0 else "")
