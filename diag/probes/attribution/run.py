"""A plan of `attribution` done: factors, one walk, tables. What is measured is saved, what fails leaves the rest.

All models that are due walk together as far as their factors fit, so that one dense pass serves all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from diag.compression.factors import Factors
from diag.compression.layer_factors import LayerFactors, groups
from diag.jobs.work import measure, said
from diag.lockstep.loaded_walk import load_walk, weight_bytes
from diag.lockstep.runner import Lockstep, Resumed, batch_windows, chunk_windows, lockstep
from diag.lockstep.variant import Variant
from diag.lockstep.walk import Walk
from diag.lockstep.window_ends import QUANTITIES, WindowEnds
from diag.probes.attribution.columns import MEASURED, TABLES
from diag.probes.attribution.ladder import is_tucker
from diag.probes.attribution.plan import Plan
from diag.probes.attribution.rows import of_factors
from diag.probes.attribution.shared_factors import Make, SharedFactors
from diag.probes.attribution.tables import tables
from diag.runs import partial
from diag.runs.folder import Part

BATCH_TOKENS = 4096  # through the models at once
Made = Mapping[Variant, Factors | None]


class Run:
    """Carries out one plan; `make` gives factors, `on_steps` is told the layers of windows that were walked."""

    def __init__(self, plan: Plan, make: Make, on_steps: Callable[[int], None]) -> None:
        self.plan, self.folder, self.on_steps = plan, plan.folder, on_steps
        self.factors, self.dtype = SharedFactors(plan, make), plan.run_dtype(plan.request.dtype)

    def execute(self) -> None:
        """Measure what is pending, compute the tables, and write them."""
        if self.folder.pending():
            self.folder.begin()
            if self.plan.due or self.plan.due_modes:
                self.folder.forget([self.plan.summary])
            made = self._made()
            self.factors.modes()
            room = self.plan.request.memory // 4 / getattr(torch, self.dtype).itemsize
            for group in groups(made, lambda factors: factors.layer_parameters, room):
                self._measure(group)
            measure(self.folder, self.plan.summary, lambda: (tables(self.plan), {}))
        for table, columns in TABLES.items():
            self.folder.write_table(table, columns, lambda part: part == self.plan.summary)

    @cached_property
    def by_layer(self) -> bool:
        """Tell whether experts are read layer by layer, because together with the rest they are more than `memory`."""
        return weight_bytes(self.plan.checkpoint, self.dtype) > self.plan.request.memory

    @cached_property
    def _walk(self) -> Walk:
        plan, memory = self.plan, self.plan.request.memory if self.by_layer else None
        return load_walk(plan.model, plan.checkpoint, plan.device, self.dtype, layer_memory=memory)

    def _made(self) -> Made:
        """Factors of all models that are due; those that cannot be made fail."""
        found: dict[Variant, Factors | None] = {}
        for variant in self.plan.due:
            try:
                found[variant] = None if variant.recipe is None else self.factors.factors(variant)
            except Exception as error:
                self._fail(self.plan.parts[variant], error)
        return found

    def _measure(self, made: Made) -> None:
        if not made:
            return
        started = time.perf_counter()
        parts = [self.plan.parts[variant] for variant in made]
        try:
            found_VQW = self.walked(made)
        except Exception as error:
            for part in parts:
                self._fail(part, error)
            return
        seconds = (time.perf_counter() - started) / len(parts)
        for part, (variant, factors), found_QW in zip(parts, made.items(), found_VQW, strict=True):
            saved = 0.0 if factors is None else factors.bits_saved(self.plan.layers)
            row = of_factors([], saved) if factors is None else of_factors(factors.rows, saved, factors.calibration)
            row["tucker"] = variant.recipe is not None and is_tucker(variant.recipe)
            arrays = dict(zip(QUANTITIES, map(np.ascontiguousarray, found_QW), strict=True))
            self.folder.finish(part, {MEASURED: [row]}, arrays, seconds)
        partial.forget(self.folder.path)

    def walked(self, made: Made) -> NDArray[np.float64]:
        """(V, Q, W) of QUANTITIES, of models that are walked together.

        A chunk is no more than a batch where nothing is read layer by layer but factors.
        """
        plan, (windows, window), memory = self.plan, self.plan.windows_WT.shape, self.plan.request.memory
        identity = [self.folder.identities[plan.parts[variant]]["variant"] for variant in made]
        identity.append(self.folder.identities[plan.summary]["parts"])
        batch, depth = batch_windows(BATCH_TOKENS, window), len(self._walk.layers)
        chunk = chunk_windows(batch, window, plan.arch.hidden, self.dtype, 1 + len(made), memory)
        ends = WindowEnds(len(made), windows)
        with LayerFactors(self._walk, {each.recipe: each for each in made.values() if each is not None}) as factors:
            models = [{} if each is None else factors.of(each.recipe, plan.layers) for each in made.values()]
            lockstep(
                plan.windows_WT,
                Lockstep(self._walk, models, batch),
                ends,
                Resumed(self.folder.path, identity, plan.request.fresh),
                chunk=chunk if self.by_layer else batch,
                on_step=lambda step: self.on_steps(len(step.ids_BT)),
                on_resume=lambda done: self.on_steps(done * depth),
            )
        return ends.found_VQW

    def _fail(self, part: Part, error: Exception) -> None:
        self.folder.fail(part, *said(part.key, error))
