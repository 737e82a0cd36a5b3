"""A plan of `attribution` done: factors, one walk, tables. What is measured is saved, what fails leaves the rest.

All models that are due walk together as far as their factors fit, so that one dense pass serves all.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from diag.compression.factors import Factors
from diag.jobs.work import said
from diag.probes.attribution.columns import MEASURED, TABLES
from diag.probes.attribution.factors import Kitchen, Make
from diag.probes.attribution.ladder import is_tucker
from diag.probes.attribution.plan import Plan, Variant
from diag.probes.attribution.rows import of_factors
from diag.probes.attribution.tables import tables
from diag.probes.attribution.walking import QUANTITIES, Walking
from diag.runs.folder import Part


class Run:
    """Of one plan; `make` gives factors, `on_steps` is told the layers of windows that were walked."""

    def __init__(self, plan: Plan, make: Make, on_steps: Callable[[int], None]) -> None:
        request = plan.request
        self.plan, self.folder = plan, plan.folder
        self.kitchen, self.on_steps = Kitchen(plan, make), on_steps
        self.walking = Walking(plan, plan.windows_WT, plan.layers, request.dtype, request.memory, plan.folder.path)

    def execute(self) -> None:
        """Measure what is pending, compute the tables, and write them."""
        if self.plan.request.fresh:
            self.walking.forget_partial()
        if self.folder.pending():
            self.folder.begin()
            if self.plan.due or self.plan.due_modes:
                self.folder.forget([self.plan.summary])
            made = self._made()
            self.kitchen.modes()
            for group in self.walking.groups(made):
                self._measure({variant: made[variant] for variant in group})
            self._summarise()
        for table, columns in TABLES.items():
            self.folder.write_table(table, columns, lambda part: part == self.plan.summary)

    def _made(self) -> dict[Variant, Factors | None]:
        """Factors of all models that are due; those that cannot be made fail."""
        found: dict[Variant, Factors | None] = {}
        for variant in self.plan.due:
            try:
                found[variant] = None if variant.recipe is None else self.kitchen.factors(variant)
            except Exception as error:
                self._fail(self.plan.parts[variant], error)
        return found

    def _measure(self, made: dict[Variant, Factors | None]) -> None:
        if not made:
            return
        started = time.perf_counter()
        parts = [self.plan.parts[variant] for variant in made]
        identity = [self.folder.identities[part]["variant"] for part in parts]
        identity.append(self.folder.identities[self.plan.summary]["parts"])
        try:
            found_VQW = self.walking.walk(list(made.values()), identity, self.on_steps)
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
        self.walking.forget_partial()

    def _summarise(self) -> None:
        started = time.perf_counter()
        try:
            found = tables(self.plan)
        except Exception as error:
            self._fail(self.plan.summary, error)
        else:
            rows = {
                name: [{column: row[column] for column in columns} for row in found[name]]
                for name, columns in TABLES.items()
            }
            self.folder.finish(self.plan.summary, rows, {}, time.perf_counter() - started)

    def _fail(self, part: Part, error: Exception) -> None:
        self.folder.fail(part, *said(part.key, error))
