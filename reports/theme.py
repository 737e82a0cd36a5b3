"""Names, colours and shapes of what is drawn and tabled: methods, modes, projections and references, in one table.

Colours are seaborn's `colorblind` palette; shapes differ too, so that colour is never the only difference. What the
table does not know takes a colour and a shape by its order of appearance in a figure.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

PALETTE = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9")
INK, GREY = "#222222", "#7a7a7a"
SHAPES = "osD^vPX*<>"
DASHES: tuple[tuple[float, ...], ...] = ((), (4, 1.5), (1, 1), (5, 1, 1, 1))  # of one family's variants


@dataclass(frozen=True)
class Look:
    """Look of something drawn; `dash` is () for a solid line, `hollow` a marker without a filling."""

    title: str
    colour: str
    shape: str = "o"
    dash: tuple[float, ...] = ()
    hollow: bool = False


LOOKS = {
    "tdmoe": Look("", PALETTE[0], "o"),  # methods have their names from `name_methods`
    "mobe": Look("", PALETTE[2], "s"),
    "svd_llm": Look("", PALETTE[1], "D"),
    "svd": Look("", PALETTE[5], "d"),
    "moe_svd": Look("", PALETTE[4], "v"),
    "d2_moe": Look("", PALETTE[9], "P"),
    "rtn": Look("", INK, "*"),
    "dense": Look("dense", GREY, "", (4, 2)),
    "cast": Look("dense, rounded", GREY, "", (1, 1)),
    "published": Look("TD-MoE as published", PALETTE[3], "X"),
    "control": Look("control", GREY, "h"),
    "isotropic": Look("isotropic", PALETTE[0], "o"),
    "flat": Look("flat", PALETTE[2], "s"),
    "rank_one": Look("rank one", PALETTE[3], "^"),
    "along": Look("along", PALETTE[1], "D"),
    "against": Look("against", PALETTE[4], "v"),
    "expert": Look("expert", PALETTE[3], "o"),
    "output": Look("output", PALETTE[4], "s"),
    "input": Look("input", PALETTE[9], "^"),
    "gate": Look("gate", PALETTE[0], "o"),
    "up": Look("up", PALETTE[1], "s"),
    "down": Look("down", PALETTE[2], "^"),
    "preserve": Look("all experts kept", INK, "s"),
    "compress": Look("experts cut", INK, "o"),
    "superweight": Look("super weights", PALETTE[3], "*"),
    "strongest_spike": Look("strongest spikes", PALETTE[3], "*"),
    "top_magnitude": Look("largest entries", PALETTE[0], "o"),
    "activation_weighted": Look("activation-weighted entries", PALETTE[1], "s"),
    "random_inlier": Look("random inliers", GREY, "D"),
    "random": Look("random weights", GREY, "d"),
    "random_mean": Look("as many random weights, mean over draws", GREY, "d"),
    "baseline": Look("baseline", GREY, "", (4, 2)),
    "fit": Look("fit", INK, ""),
    "reference": Look("reference", INK, "", (1.5, 1.5)),
    "value": Look("value", INK, "o"),
    "better": Look("better", PALETTE[0], ""),
    "worse": Look("worse", PALETTE[3], ""),
    "level": Look("level", "#6b7178", ""),
}
OPTIONS = {  # of a method's spec, in a reader's words; others as they are
    "allocation=published": "published ranks",
    "decomposition=hosvd": "HOSVD",
    "decomposition=st_hosvd": "ST-HOSVD",
    "preset=published": "published preset",
    "whitening=none": "unwhitened",
}
NAMES: dict[str, str] = {}  # of methods, by themselves
_REST = re.compile(r"(?= at | \()")  # behind a model's spec
_SAME = ("gate", "up", "down", "expert", "output", "input")


def name_methods(described: Mapping[str, tuple[str, str, str]]) -> None:
    """Take {name: (display name, family, reference)} of methods; one of the family control looks like a control."""
    for name, (display, kind, _) in described.items():
        NAMES[name] = display
        if kind == "control":
            LOOKS.setdefault(name, LOOKS[kind])


def family(name: str) -> str:
    """A spec's method; `truncate:mode=expert` is of the expert mode, which alone is cut."""
    head, _, options = _REST.split(name, maxsplit=1)[0].partition(":")
    return options.removeprefix("mode=") if head == "truncate" else head


def title(name: str) -> str:
    """A method's spec, a mode or a projection in a reader's words; anything else as it is.

    `tdmoe:whitening=none at 0.4` is 'TD-MoE (unwhitened) at 0.4', `cast:dtype=bfloat16` 'dense in bfloat16'.
    """
    spec, *rest = _REST.split(name, maxsplit=1)
    head, _, options = spec.partition(":")
    if head == "truncate":
        return f"{family(spec)} mode truncated{''.join(rest)}"
    if head == "cast":
        return f"dense in {options.removeprefix('dtype=')}"
    if head not in LOOKS and head not in NAMES:
        return name
    words = [OPTIONS.get(option, option) for option in options.split(",") if option]
    return (NAMES.get(head) or LOOKS[head].title or head) + (f" ({', '.join(words)})" if words else "") + "".join(rest)


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Look of each of a figure's names: variants of one method differ in dash and filling."""
    found: dict[str, Look] = {}
    seen: dict[str, int] = {}
    for name in names:
        if name in found:
            continue
        kind = family(name)
        variant = seen[kind] = seen.get(kind, -1) + 1
        if kind in LOOKS:
            look = replace(LOOKS[kind], title=title(name))
        else:
            place = len(found)
            look = Look(title(name), PALETTE[place % len(PALETTE)], SHAPES[place % len(SHAPES)])
        if variant:
            look = replace(look, dash=DASHES[variant % len(DASHES)], hollow=variant % 2 == 1)
        found[name] = look
    return found


def order(name: str) -> tuple[int, str]:
    """Sort key: gate, up, down and expert, output, input as everywhere in the project, then any other name."""
    return (_SAME.index(name) if name in _SAME else len(_SAME), name)
