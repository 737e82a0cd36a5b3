"""The five kinds of figures: data in, one harmless SVG out, the same each time, said in words from the same data."""

from __future__ import annotations

import warnings
import xml.etree.ElementTree as ElementTree

import pytest
from test_figures import HOSTILE

from reports.plots import (
    Bar,
    Entry,
    Forest,
    Heat,
    Level,
    Mark,
    Panel,
    Panels,
    Plot,
    Scatter,
    Series,
    Waterfall,
    draw,
)
from reports.theme import LOOKS, looks, title

SPECS = ("tdmoe", "tdmoe:whitening=none", "mobe", HOSTILE)


def panels() -> Panels:
    lines = [Series([1, 2, 4], [k + 1.0, k + 0.5, k + 0.25], name, low=[k + 0.9, k + 0.4, k + 0.2],
                    high=[k + 1.1, k + 0.6, k + 0.3]) for k, name in enumerate(SPECS)]  # fmt: skip
    star = Series([2], [0.5], "mobe", "least", "none", "star")
    steps = Series([1, 4], [2.0, 1.0], "reference", "front", "steps", "no")
    return Panels("p", "Loss over bits", "caption", panels=[
        Panel("wikitext2", [*lines, star, steps], [Level(0.4, "dense", "dense"), Level(3, axis="x")], note="0.9"),
        Panel("c4", lines[:1])], x="bits", y="loss", whole="x", zero="y")  # fmt: skip


def scatter() -> Scatter:
    points = [Series([1, 10], [0.1, 3.0], name, line="none", sizes=[0.1, 0.9], shades=[0.2, None], texts=["a", HOSTILE])
              for name in SPECS[:2]]  # fmt: skip
    return Scatter("s", "Angle and norm", "caption", panels=[Panel("one", points, x="own x"), Panel("two", points)] * 2,
                   x="angle", y="norm", log="xy", columns=2, diagonal="equal", scale="added loss, nats",
                   same="")  # fmt: skip


def forest() -> Forest:
    def entry(name: str) -> Entry:
        return Entry(f"{name} on layer", [Mark(0.5, low=0.2, high=0.9, inner=(0.4, 0.6)), Mark(0.1, "baseline"),
                                          Mark(0.7, "mobe", hollow=True)], "0.50\n(0.2 to 0.9)")  # fmt: skip

    return Forest("f", "Shares", "caption", groups=[("gate", [entry("a"), entry(HOSTILE)]), ("", [entry("c")])],
                  x="share", levels=[Level(0.0, axis="x")])  # fmt: skip


def waterfall() -> Waterfall:
    bars = [Bar("as published", 2.0, error=0.1, note="2.000"), Bar(HOSTILE, 1.2, 2.0, "−0.800", 0.1, "better"),
            Bar("lost", None, note="failed"), Bar("far", 9.0, note="9.000")]  # fmt: skip
    groups = [("TD-MoE", bars), ("MoBE", [Bar("published", 0.5, name="mobe")])]
    return Waterfall("w", "Ladder", "caption", groups=groups, x="nats",
                     levels=[Level(0.5, "MoBE", "mobe", "x")], most=2.2, gap=(2.0, 0.5),
                     share="gap closed, %")  # fmt: skip


def heat() -> Heat:
    return Heat("h", "Depth", "caption", rows=["0", "3"], columns=["expert", "input"] * 2,
                values=[[0.1, -0.2, None, 0.0], [0.3, 0.1, 0.2, None]], texts=[["a", "b", "", "c"]] * 2,
                groups=[("gate", 2), (HOSTILE, 2)], scale="alpha", x="mode", y="layer")  # fmt: skip


@pytest.mark.parametrize("plot", [panels(), scatter(), forest(), waterfall(), heat()], ids=lambda plot: plot.name)
def test_a_kind_is_drawn_the_same_each_time_and_harmless(plot: Plot) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = draw(plot, HOSTILE)
    assert first == draw(plot, HOSTILE)
    assert ElementTree.fromstring(first.svg).tag.endswith("svg")
    assert b"<script" not in first.svg
    assert len(first.svg) < 150_000
    assert (first.name, first.title, first.caption) == (plot.name, plot.title, "caption")


@pytest.mark.parametrize(
    ("plot", "told"),
    [
        (panels(), "wikitext2: TD-MoE 1 at 1 to 0.25 at 4; TD-MoE (unwhitened) 2 at 1 to 1.25 at 4; MoBE 3 at 1"),
        (scatter(), "log-log, norm over angle. one: TD-MoE 2 points from 0.1 to 3"),
        (forest(), "gate: a on layer 0.5 (0.2 to 0.9), baseline 0.1 and MoBE 0.7"),
        (waterfall(), "lost failed, far 9. MoBE: published 0.5."),
        (heat(), "From −0.2 (layer 0, gate input) to 0.3 (layer 3, gate expert); 4 of 6 cells are above zero; 2 cells"),
    ],
    ids=lambda case: getattr(case, "name", ""),
)
def test_it_is_said_in_words_from_its_data(plot: Plot, told: str) -> None:
    assert told in draw(plot, "mini").alt


def test_variants_of_a_method_differ_and_its_colour_stays() -> None:
    found = looks([*SPECS, "dense", "truncate:mode=input", "some"])
    assert found["tdmoe"].colour == found["tdmoe:whitening=none"].colour == LOOKS["tdmoe"].colour
    assert found["tdmoe"].dash != found["tdmoe:whitening=none"].dash
    assert found["truncate:mode=input"].colour == LOOKS["input"].colour
    assert found["some"].title == "some"
    assert title("tdmoe:whitening=none,allocation=published") == "TD-MoE (unwhitened, published ranks)"
