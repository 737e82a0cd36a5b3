"""Share of the gap to MoBE that is how TD-MoE was run: two rows, against MoBE with the same changes and as it is.

    gap_closed = (L_published - L_best) / (L_published - L_MoBE),    left_nats = L_best - L_MoBE

L means over all windows. L_best is of TD-MoE's runs over MoBE's projections, steps and combinations of switches: each
half of the windows is told of the run that loses least on the other half (`gap.crossed`), since the least of many
losses is too low. The choice is held in the bootstrap samples. L_MoBE is

- `same_changes`: the least of MoBE's presets and of MoBE with those changes of the chosen run that MoBE can have: the
  refit of what is each expert's own under its own inputs. Both sides may leave a change out that does them harm;
- `presets`: the least of MoBE's presets, as in attribution.csv.

`given` names the changes that MoBE had too, `not_given` those that it had not: where the refit was not measured there
is no row of the first kind but its status, and a budget shared by sensitivity is TD-MoE's alone over one set of
projections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diag.probes.attribution.columns import PRESETS, SAME_CHANGES, SHARES, TABLES
from diag.probes.attribution.rows import NO_GAP, NOT_MEASURED
from diag.statistics.gap import Gap, Vector, chosen, spliced
from tdmoe import methods

REFIT, BUDGET = "refit", "budget"

Row = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A measured run: its name in the tables, its spec, and its losses by window."""

    phrase: str
    ladder: str
    method: str
    losses_W: Vector
    preset: bool = False

    @property
    def changes(self) -> frozenset[str]:
        """Changes that it has, of those that MoBE's ladder and TD-MoE's may both have."""
        options = methods.parse(self.method)[1]
        found = {REFIT: getattr(options, "refit", "none") == "expert"}
        found[BUDGET] = getattr(options, "across", "uniform") == "global"
        return frozenset(name for name, there in found.items() if there)


def share_rows(
    tensors: Sequence[Candidate],
    matrices: Sequence[Candidate],
    published_W: Vector,
    weights_BW: Vector,
    common: Mapping[str, Any],
) -> list[Row]:
    """Two rows from TD-MoE's runs and MoBE's, all over the same projections; none without a preset."""
    presets = [one for one in matrices if one.preset]
    if not tensors or not presets:
        return []
    losses = [one.losses_W for one in tensors]
    best = tensors[int(np.stack(losses).mean(1).argmin())]
    first, second = (tensors[place] for place in chosen(losses))
    ours_W = spliced(first.losses_W, second.losses_W)
    about: Row = dict.fromkeys(TABLES[SHARES]) | {"step": best.phrase, "ladder": best.ladder}
    about |= {"step_first_half": first.phrase, "step_second_half": second.phrase}
    about |= {name: common[name] for name in ("text", "windows")}
    rows = []
    for against in (SAME_CHANGES, PRESETS):
        rivals, missing = list(presets), best.changes
        if against == SAME_CHANGES:
            twins = [_twin(one, matrices) for one in (first, second)]
            missing = best.changes - {name for one in matrices for name in one.changes}
            if None not in twins:
                one, other = (twin for twin in twins if twin is not None)
                rivals.append(replace(one, losses_W=spliced(one.losses_W, other.losses_W)))
        row = about | {"against": against, "not_given": ",".join(sorted(missing))}
        row["given"] = ",".join(sorted(best.changes - missing))
        able = against == PRESETS or len(rivals) > len(presets)
        rows.append(row | (_measured(rivals, published_W, ours_W, weights_BW) if able else {"status": NOT_MEASURED}))
    return rows


def _twin(run: Candidate, matrices: Sequence[Candidate]) -> Candidate | None:
    """MoBE with the refit where the run has one; a preset where not; None where there is no such MoBE."""
    if REFIT not in run.changes:
        return next(one for one in matrices if one.preset)
    return next((one for one in matrices if REFIT in one.changes), None)


def _measured(rivals: Sequence[Candidate], published_W: Vector, ours_W: Vector, weights_BW: Vector) -> Row:
    losses = [one.losses_W for one in rivals]
    gap = Gap.of(published_W, losses, weights_BW)
    row: Row = {"mobe": rivals[int(np.stack(losses).mean(1).argmin())].phrase, "status": "ok", "gap_nats": gap.value}
    row["gap_nats_low"], row["gap_nats_high"] = gap.interval
    row["left_nats"], (row["left_low"], row["left_high"]) = gap.over_mobe(ours_W)
    if not gap.clear:
        return row | {"status": NO_GAP}
    row["gap_closed"], (row["gap_low"], row["gap_high"]) = gap.closed(ours_W)
    return row
