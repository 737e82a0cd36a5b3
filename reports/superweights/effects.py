"""The strongest spike of every layer beside the threshold, and what zeroing weights does to the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from reports.drawing import COLOURS, INK, NULL_GREY, WIDTH, Figure, canvas, label, plain_numbers, signed_numbers, svg
from reports.formats import fixed, listing, significant
from reports.run import Row, given

SPIKES, ABLATION = "superweights-spikes", "superweights-ablation"
_LEFT, _RIGHT = 0.75, 0.14  # inches
NAMES = {
    **{"superweight": "super weights", "strongest_spike": "strongest spikes", "top_magnitude": "largest entries"},
    **{"activation_weighted": "activation-weighted", "random_inlier": "random inliers", "random": "random"},
    "random_mean": "random, mean over draws",
}


@dataclass(frozen=True)
class Effect:
    """One group zeroed, beside as many random weights of the same matrices."""

    group: str
    where: str
    row: Row
    random: list[Row]
    random_mean: Row | None = None

    @property
    def what(self) -> str:
        count, name = int(self.row["zeroed"]), NAMES.get(self.group, self.group)
        return f"{count} {name.removesuffix('s') if count == 1 else name}"

    @property
    def name(self) -> str:
        return f"{self.what}, {self.where}" if self.where else self.what

    @property
    def change(self) -> float:
        return float(self.row["loss_change"])

    @property
    def stderr(self) -> float | None:
        return None if self.row.get("loss_change_stderr") is None else float(self.row["loss_change_stderr"])

    @property
    def random_change(self) -> float | None:
        """Mean over draws."""
        return None if self.random_mean is None else float(self.random_mean["loss_change"])

    @property
    def random_stderr(self) -> float | None:
        """Of that mean, over windows as that of the group."""
        mean = self.random_mean or {}
        return None if mean.get("loss_change_stderr") is None else float(mean["loss_change_stderr"])


def effects(rows: Sequence[Row]) -> list[Effect]:
    """What was zeroed, in the order measured."""
    found = []
    for row in rows:
        if row["group"] in ("dense", "random", "random_mean") or not given(row, "loss_change"):
            continue
        place = ("layer", "projection", "expert", "zeroed")
        same = [other for other in rows if all(other.get(key) == row.get(key) for key in place)]
        draws = [other for other in same if other["group"] == "random" and given(other, "loss_change")]
        mean = next((other for other in same if other["group"] == "random_mean"), None)
        expert = f", expert {int(row['expert'])}" if given(row, "expert") else ""
        where = f"L{int(row['layer'])} {row['projection']}{expert}" if given(row, "layer") else ""
        found.append(Effect(str(row["group"]), where, row, draws, mean))
    return found


def spikes_figure(model: str, rows: Sequence[Row]) -> Figure:
    """Largest input and output of a down projection by layer, on a log scale, with the threshold."""
    height = 2.9
    figure = canvas(height)
    axes = figure.add_axes((_LEFT / WIDTH, 0.5 / height, (WIDTH - _LEFT - _RIGHT) / WIDTH, (height - 1.25) / height))
    layers = [int(row["layer"]) for row in rows]
    for column, tone, mark in (("input_activation", COLOURS[0], "o"), ("output_activation", COLOURS[1], "s")):
        axes.plot(
            layers, [abs(float(row[column])) for row in rows], color=tone, marker=mark, markersize=4, linewidth=1.3
        )
    threshold = float(rows[0]["threshold"])
    axes.axhline(threshold, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
    values = [abs(float(row[c])) for row in rows for c in ("input_activation", "output_activation")]
    high = max(*values, threshold)
    low = min(max(min(values), 1e-4 * high), threshold)
    axes.set(yscale="log", xlabel="layer", ylabel="magnitude", ylim=(low / 1.4, high * 1.6))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,), numticks=8))
    axes.yaxis.set_major_formatter(plain_numbers())
    axes.yaxis.set_minor_locator(NullLocator())
    if len(layers) <= 12:
        axes.set_xticks(layers)
    handles = [
        Line2D([], [], color=COLOURS[0], marker="o", markersize=4, linewidth=1.3, label="largest input"),
        Line2D([], [], color=COLOURS[1], marker="s", markersize=4, linewidth=1.3, label="largest output"),
        Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (4, 2)), label=f"threshold {threshold:g}"),
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.02, 1 - 0.3 / height), ncols=3, frameon=False,
        handlelength=1.8, columnspacing=1.0, borderpad=0, fontsize=7.5,
    )  # fmt: skip
    figure.text(0.03, 1 - 0.07 / height, "Strongest spike of each layer", fontweight="bold", va="top")
    figure.text(0.97, 1 - 0.08 / height, label(model, 24), fontsize=7.5, color="#555555", va="top", ha="right")
    parts = [
        f"layer {int(row['layer'])} {significant(abs(float(row['input_activation'])))} and "
        f"{significant(abs(float(row['output_activation'])))}"
        for row in rows
    ]
    return Figure(
        name=SPIKES,
        title="Activation spikes",
        alt=f"Largest input and output magnitude by layer: {listing(parts)}. Threshold {threshold:g}.",
        caption=(
            "Largest input and output magnitude of the down projection that spikes most in each layer, before any "
            "weight was zeroed. A super weight needs both above the threshold at one token."
        ),
        svg=svg(figure),
    )


def ablation_figure(model: str, found: Sequence[Effect]) -> Figure:
    """Change of the loss for each group that was zeroed, beside random weights."""
    height = 1.35 + 0.42 * len(found)
    figure = canvas(height)
    axes = figure.add_axes((1.75 / WIDTH, 0.5 / height, (WIDTH - 1.75 - _RIGHT) / WIDTH, (height - 1.15) / height))
    for place, effect in enumerate(found):
        axes.errorbar(
            [effect.change], [place - 0.12], xerr=[2 * (effect.stderr or 0.0)], fmt="o", color=COLOURS[3], markersize=5,
            elinewidth=1.4, capsize=2.5,
        )  # fmt: skip
        draws = [float(row["loss_change"]) for row in effect.random]
        axes.plot(draws, [place + 0.2] * len(draws), linestyle="none", marker="|", markersize=8, color=NULL_GREY)
    axes.axvline(0.0, color=INK, linewidth=0.8)
    names = [f"{label(effect.what, 30)}\n{label(effect.where, 30)}".strip() for effect in found]
    axes.set_yticks(range(len(found)), names, fontsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set(ylim=(len(found) - 0.5, -0.5), xlabel="change of the loss (nats a token)")
    axes.xaxis.set_major_formatter(signed_numbers())
    handles = [
        Line2D([], [], color=COLOURS[3], marker="o", markersize=5, linewidth=1.4, label="zeroed (± 2 standard errors)"),
        Line2D([], [], color=NULL_GREY, marker="|", markersize=8, linewidth=0, label="random draws"),
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.02, 1 - 0.28 / height), ncols=2, frameon=False,
        handlelength=1.8, columnspacing=1.0, borderpad=0, fontsize=7.5,
    )  # fmt: skip
    figure.text(0.03, 1 - 0.07 / height, "Zeroing weights", fontweight="bold", va="top")
    figure.text(0.97, 1 - 0.08 / height, label(model, 24), fontsize=7.5, color="#555555", va="top", ha="right")
    parts = [
        f"{effect.name}: {fixed(effect.change, 5, signed=True)} nats, random "
        f"{fixed(effect.random_change, 5, signed=True)}"
        for effect in found
    ]
    return Figure(
        name=ABLATION,
        title="Ablation",
        alt=f"Change of the loss: {'; '.join(parts)}.",
        caption=(
            "Change of the mean next-token loss when weights are set to zero, in pairs over the same windows. Grey: "
            "each draw of as many random weights of the same matrices."
        ),
        svg=svg(figure),
    )
