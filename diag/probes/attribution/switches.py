"""The switches of TD-MoE: single choices that were published one way and can be made another, each on or off.

A coalition is a set of switches that are on; the empty one is TD-MoE as published. Where a combination leaves room:

- exact ranks count what is stored anyway, so beside them `stored` changes nothing;
- the step of ranks is that of exact ones: without these it changes nothing;
- exact ranks without whitening minimise the weight error: nothing is known of the inputs yet;
- the core refit uses each expert's own inputs, whatever metric the factors come from.
"""

from __future__ import annotations

from collections.abc import Collection

from tdmoe import methods, spec
from tdmoe.numerics.ranks import ALIGNMENT
from tdmoe.stacks.families import MEMBERS

STORED, WHITENING, RANKS, FINE = "stored", "whitening", "ranks", "fine"
HOOI, JOINT, REFIT = "hooi", "joint", "refit"
SWITCHES = {  # in the order of the ladder
    STORED: "full modes store no factor",
    WHITENING: "correct whitening",
    RANKS: "exact ranks",
    FINE: "ranks in smaller steps, budget spent",
    HOOI: "HOOI",
    JOINT: "shared input factor",
    REFIT: "core refit",
}


def switches(projections: Collection[str], alignment: int) -> list[str]:
    """Switches that there are: an input factor is shared only where gate and up are both there.

    `alignment` is the least step in which exact ranks can be searched; it may be no smaller than the published one.
    """
    missing = set() if set(MEMBERS["gate_up"]) <= set(projections) else {JOINT}
    missing |= {FINE} if alignment >= ALIGNMENT else set()
    return [name for name in SWITCHES if name not in missing]


def method(on: Collection[str], alignment: int) -> str:
    """The canonical spec of TD-MoE with these switches on; `alignment` as above."""
    step = alignment if FINE in on else max(alignment, ALIGNMENT)
    chosen = {
        "whitening": "input" if WHITENING in on else "none",
        "allocation": "exact" if RANKS in on else "published_stored" if STORED in on else "published",
        "objective": "weight" if RANKS in on and WHITENING not in on else "functional",
        "decomposition": "hooi" if HOOI in on else "hosvd",
        "gate_up": "joint" if JOINT in on else "apart",
        "refit": "expert" if REFIT in on else "none",
        "alignment": str(step if RANKS in on else ALIGNMENT),
    }
    return canonical("tdmoe:" + ",".join(f"{key}={value}" for key, value in chosen.items()))


def canonical(text: str) -> str:
    """A spec without what is default."""
    found, options = methods.parse(text)
    return spec.text(found.NAME, options)


def changed(text: str, **values: str) -> str:
    """The canonical spec with these options changed."""
    name, given = spec.split(text)
    return canonical(f"{name}:" + ",".join(f"{key}={value}" for key, value in (given | values).items()))
