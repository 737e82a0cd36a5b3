"""A plan of `quality` carried out: dense model and variants in one walk over each text, then the tasks.

Factors are made once a recipe, whatever sets of layers a schedule has; one walk serves the dense model and all variants
whose factors fit beside it. What is measured is saved at once; what fails leaves the others alone.

Legend: W windows, T tokens, N documents.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from diag.compression.checkpoints import OnDisk
from diag.compression.compressing import Saved
from diag.compression.factors import Factors
from diag.compression.layer_factors import groups
from diag.jobs.work import failing, said
from diag.lockstep.runner import Lockstep, Resumed, batch_windows, lockstep
from diag.lockstep.variant import Recipe, Variant
from diag.lockstep.walk import Replaced, Walk
from diag.lockstep.window_ends import LOSSES, WindowEnds
from diag.models.transformer import load_model
from diag.probes.quality.columns import TABLES
from diag.probes.quality.measure import (
    NAME,
    DataSet,
    Vector,
    accuracy_row,
    macro_row,
    perplexity_row,
)
from diag.probes.quality.plan import Plan
from diag.probes.quality.zero_shot import Evaluator, Task
from diag.runs import partial as partial_sums
from diag.runs.results import Row
from diag.statistics.evaluation import model_losses
from tdmoe.problems import WeightError

BATCH_TOKENS = 4096  # through the models at once
ROOM = 0.6  # of the free memory, for factors beside the dense model
NO_LOSS = "its loss is NaN or infinite; look at its weights, or give --dtype float32"
CORRECT = "correct"

T = TypeVar("T")


class Run:
    """The measurement of a plan. `made` are factors of all recipes but those `unmade`, where `plan.due_variants`."""

    def __init__(
        self, plan: Plan, made: Sequence[Factors], unmade: Mapping[Recipe, str], on_steps: Callable[[int], None]
    ) -> None:
        self.plan, self.folder, self.unmade = plan, plan.folder, unmade
        self.made = {factors.recipe: factors for factors in made}
        self.calibrations = {variant: found.calibration for variant, found in plan.on_disk.items()}
        self.calibrations |= {v: self.made[v.recipe].calibration for v in plan.variants if v.recipe in self.made}
        self.dense, self.on_steps = Variant(), on_steps

    def execute(self) -> None:
        """Measure what is pending, and write the table."""
        if self.folder.pending():
            self.folder.begin()
            for variant in self.plan.variants:
                if variant.recipe is not None and variant.recipe in self.unmade:
                    self._fail(variant, self.plan.data, self.unmade[variant.recipe])
            due = self.plan.due_variants
            if due or self.plan.is_due(self.dense):
                with failing(self.folder, [self.plan.parts[v, d] for v in (self.dense, *due) for d in self.plan.data]):
                    self._own(due)
            for variant, found in self.plan.on_disk.items():
                if self.plan.is_due(variant):
                    self._on_disk(variant, found)
            self._macros()
        self.folder.write_table(NAME, TABLES[NAME])

    def _fail(self, variant: Variant, data: Sequence[DataSet], message: str) -> None:
        for each in data:
            if self.plan.is_due(variant, each):
                self.folder.fail(self.plan.parts[variant, each], message, message)

    def _own(self, due: Sequence[Variant]) -> None:
        """The dense model, and the variants that are due."""
        plan = self.plan
        model = plan.load(plan.dtype)
        walk = Walk(model)
        evaluator = Evaluator(model, plan.tokenizer()) if plan.tasks else None
        made = {variant: self.made[variant.recipe] for variant in due if variant.recipe is not None}
        for group in groups(made, lambda factors: factors.parameters, self._room() / model.dtype.itemsize):
            modules = {
                factors.recipe: {layer: factors.module(walk.experts[layer], layer) for layer in plan.sets[-1]}
                for factors in {made[variant].recipe: made[variant] for variant in group}.values()
            }
            put: dict[Variant, Replaced] = {self.dense: {}}
            put |= {v: {layer: modules[made[v].recipe][layer] for layer in v.layers} for v in group}
            for data in plan.texts:
                self._walk(walk, data, {variant: found for variant, found in put.items() if plan.is_due(variant, data)})
            for data, task in plan.tasks.items():
                for variant, replaced in put.items():
                    with walk.replaced(replaced):
                        self._answer(evaluator, variant, data, task, self._saved(variant))

    def _saved(self, variant: Variant) -> Saved:
        recipe = variant.recipe
        return self.plan.saved() if recipe is None else self.plan.saved(self.made[recipe].bits_saved(variant.layers))

    def _room(self) -> float:
        """Bytes of factors that fit beside the dense model."""
        if self.plan.device == "cpu":
            return ROOM * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        return ROOM * float(torch.cuda.mem_get_info(self.plan.device)[0])

    def _walk(self, walk: Walk, data: DataSet, put: Mapping[Variant, Replaced]) -> None:
        """All that are due on a text, in one walk over it."""
        if not put:
            return
        started = time.perf_counter()
        losses_VW = self._attempt(list(put), data, partial(self._walked, walk, data, put))
        if losses_VW is not None:
            seconds = (time.perf_counter() - started) / len(put)
            for variant, losses_W in zip(put, losses_VW, strict=True):
                if not np.isfinite(losses_W).all():
                    self._fail(variant, [data], NO_LOSS)
                    continue
                self._finish_text(variant, data, losses_W, self._saved(variant), seconds)
            partial_sums.forget(self.folder.path)

    def _walked(self, walk: Walk, data: DataSet, put: Mapping[Variant, Replaced]) -> Vector:
        """Losses by window of every variant; one without replaced layers is the dense model, at no cost of its own."""
        plan, ids_WT, count = self.plan, self.plan.texts[data], len(put)
        ends = WindowEnds(count, len(ids_WT), [LOSSES], plan.protocol.scored)
        identity = [self.folder.identities[plan.parts[variant, data]] for variant in put]
        batch = batch_windows(BATCH_TOKENS, ids_WT.shape[1])
        lockstep(
            ids_WT,
            Lockstep(walk, list(put.values()), batch),
            ends,
            Resumed(self.folder.path, identity, plan.request.fresh),
            chunk=batch,
            on_step=lambda step: self.on_steps(count * len(step.ids_BT) * step.is_last),
            on_resume=lambda done: self.on_steps(count * done),
        )
        return np.ascontiguousarray(ends.found_VQW[:, 0])

    def _on_disk(self, variant: Variant, found: OnDisk) -> None:
        """A checkpoint as transformers runs it."""
        plan = self.plan
        data = [each for each in plan.data if plan.is_due(variant, each)]
        model: Any = None
        for each in data:  # the first loads it
            loads = partial(load_model, found.model, found.model.files(), plan.device, plan.dtype)
            model = self._attempt([variant], each, loads) if model is None else model
            if model is None:
                continue
            if each in plan.texts:
                started = time.perf_counter()
                losses_W = self._attempt([variant], each, partial(self._losses, model, plan.texts[each]))
                if losses_W is not None:
                    self._finish_text(variant, each, losses_W, found.saved, time.perf_counter() - started)
            else:
                evaluator = Evaluator(model, plan.tokenizer())
                self._answer(evaluator, variant, each, plan.tasks[each], found.saved)

    def _losses(self, model: Any, ids_WT: Tensor) -> Vector:
        losses_W = model_losses(
            model, ids_WT, self.plan.protocol.scored, batch_windows(BATCH_TOKENS, ids_WT.shape[1]), self.on_steps
        )
        if not np.isfinite(losses_W).all():
            raise WeightError(NO_LOSS)
        return losses_W

    def _finish_text(self, variant: Variant, data: DataSet, losses_W: Vector, saved: Saved, seconds: float) -> None:
        dense_W = None if variant == self.dense else self._array(self.dense, data, LOSSES)
        row = perplexity_row(variant, data, losses_W, dense_W, saved)
        row["calibration"] = self.calibrations.get(variant, "")
        self._finish(variant, data, row, {LOSSES: losses_W}, seconds)

    def _answer(self, evaluator: Evaluator | None, variant: Variant, data: DataSet, task: Task, saved: Saved) -> None:
        """One model on one task, where that is due."""
        if evaluator is None or not self.plan.is_due(variant, data):
            return
        started = time.perf_counter()
        correct_N = self._attempt([variant], data, partial(evaluator.run, task, self.plan.request.limit))
        if correct_N is not None:
            dense_N = None if variant == self.dense else self._array(self.dense, data, CORRECT)
            row = accuracy_row(variant, data, correct_N, dense_N, saved)
            row["calibration"] = self.calibrations.get(variant, "")
            self._finish(variant, data, row, {CORRECT: correct_N}, time.perf_counter() - started)
            self.on_steps(task.documents)

    def _macros(self) -> None:
        """Average over tasks, of models whose tasks are all measured."""
        tasks = self.plan.tasks
        for variant, data in self.plan.parts:
            if data in self.plan.data or not self.plan.is_due(variant, data):
                continue
            correct, dense = (
                [found for task in tasks if (found := self._array(model, task, CORRECT)) is not None]
                for model in (variant, self.dense)
            )
            if len(correct) < len(tasks):
                self.folder.fail(self.plan.parts[variant, data], "not all of its tasks were measured", "")
                continue
            first = self.folder.outcomes[self.plan.parts[variant, next(iter(tasks))].key].tables[NAME][0]
            saved = Saved(*(first[name] for name in ("bits_saved", "bits_saved_bf16", "bits_saved_of")))
            paired = None if variant == self.dense or len(dense) < len(tasks) else dense
            row = macro_row(variant, data, correct, paired, saved) | {"calibration": first["calibration"]}
            self._finish(variant, data, row, {}, 0.0)

    def _finish(self, variant: Variant, data: DataSet, row: Row, arrays: Mapping[str, Vector], seconds: float) -> None:
        self.folder.finish(self.plan.parts[variant, data], {NAME: [row]}, arrays, seconds)

    def _array(self, variant: Variant, data: DataSet, name: str) -> Vector | None:
        part = self.plan.parts[variant, data]
        return self.folder.arrays(part)[name] if self.folder.outcomes[part.key].state == "done" else None

    def _attempt(self, variants: Sequence[Variant], data: DataSet, work: Callable[[], T]) -> T | None:
        """Result of `work`, or None where it fails: then so do these parts, and the others go on."""
        try:
            return work()
        except Exception as error:
            for variant in variants:
                part = self.plan.parts[variant, data]
                self.folder.fail(part, *said(part.key, error))
            return None
