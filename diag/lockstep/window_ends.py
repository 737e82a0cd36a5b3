"""Ends of models, by window: the mean loss, and the last layer's angle and norm ratio to the dense model's stream.

Legend: V models, Q quantities, W windows, B windows of a batch, T tokens, H hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diag.lockstep.runner import Step
from diag.lockstep.walk import Stream
from diag.statistics.evaluation import window_losses
from diag.statistics.streams import angles, norm_ratios

LOSSES = "losses"
QUANTITIES = (LOSSES, "angles", "norm_ratios")
FOUND = "found"


class WindowEnds:
    """An accumulator of QUANTITIES, or of the first of them; losses are those of the last `scored` tokens."""

    def __init__(
        self, models: int, windows: int, quantities: Sequence[str] = QUANTITIES, scored: int | None = None
    ) -> None:
        self.found_VQW = np.full((models, len(quantities), windows), np.nan)
        self._geometry, self._scored = len(quantities) > 1, scored

    def observe(self, step: Step) -> None:
        """Write the batch's means to each stream's models, once it has left the last layer."""
        for stream in step.streams if step.is_last else ():
            if stream.members:
                self.found_VQW[stream.members, :, step.windows] = self._ends(step, stream)

    def _ends(self, step: Step, stream: Stream) -> NDArray[np.float64]:
        dense, logits_BTV = step.streams[0], step.walk.logits(step.ids_BT, stream.h_BTH)
        found = [window_losses(logits_BTV, step.ids_BT, self._scored).cpu().numpy()]
        if self._geometry and stream is dense:
            found += [np.zeros(len(step.ids_BT)), np.ones(len(step.ids_BT))]
        elif self._geometry:
            measured = (measure(dense.h_BTH, stream.h_BTH) for measure in (angles, norm_ratios))
            found += [value_BT.mean(1).cpu().numpy() for value_BT in measured]
        return np.stack(found)

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """One array, NaN where windows are left."""
        return {FOUND: self.found_VQW}

    def restore(self, arrays: Mapping[str, NDArray[Any]], windows: int) -> None:
        """Go on after these."""
        self.found_VQW[:] = arrays[FOUND]
