"""A plan of `quality` carried out: dense model and variants in one walk over each text, then the tasks.

Factors are made once a recipe, whatever sets of layers a schedule has; one walk serves the dense model and all variants
whose factors fit beside it. What is measured is saved at once; what fails leaves the others alone.

Legend: W windows, B windows of a batch, T tokens, H hidden size, V vocabulary, N documents.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from diag.compression.factors import Factors, Recipe
from diag.jobs.work import failing, said
from diag.models.transformer import load_model
from diag.models.walk import Replaced, Walk
from diag.probes.quality.compressed import OnDisk
from diag.probes.quality.measure import (
    COLUMNS,
    DENSE,
    NAME,
    DataSet,
    Saved,
    Subject,
    Vector,
    accuracy_row,
    macro_row,
    perplexity_row,
)
from diag.probes.quality.plan import Plan
from diag.probes.quality.zero_shot import Evaluator, Task
from diag.runs.folder import Part
from diag.runs.results import Row
from diag.statistics.evaluation import model_losses, window_losses
from tdmoe.compression.counted import denominator
from tdmoe.problems import WeightError

BATCH_TOKENS = 4096  # through the models at once
ROOM = 0.6  # of the free memory, for factors beside the dense model
NO_LOSS = "its loss is NaN or infinite; look at its weights, or give --dtype float32"
LOSSES, CORRECT = "losses", "correct"

T = TypeVar("T")


class Run:
    """The measurement of a plan. `made` are factors of all recipes but those `unmade`, where `plan.due_variants`."""

    def __init__(
        self, plan: Plan, made: Sequence[Factors], unmade: Mapping[Recipe, str], on_steps: Callable[[int], None]
    ) -> None:
        self.plan, self.folder, self.unmade = plan, plan.folder, unmade
        self.made = {factors.recipe: factors for factors in made}
        self.calibrations = {found.subject: found.calibration for found in plan.on_disk}
        for subject, (recipe, _) in plan.variants.items():
            if recipe in self.made:
                self.calibrations[subject] = self.made[recipe].calibration
        self.on_steps = on_steps

    def execute(self) -> None:
        """Measure what is pending, and write the table."""
        if self.folder.pending():
            self.folder.begin()
            for subject, (recipe, _) in self.plan.variants.items():
                if recipe in self.unmade:
                    self._fail([subject], self.plan.data, self.unmade[recipe])
            due = self.plan.due_variants
            if due or self.plan.is_due(DENSE):
                with failing(self.folder, [self.plan.parts[s, d] for s in (DENSE, *due) for d in self.plan.data]):
                    self._own(due)
            for found in self.plan.on_disk:
                if self.plan.is_due(found.subject):
                    self._on_disk(found)
            self._macros()
        self.folder.write_table(NAME, COLUMNS)

    def _fail(self, subjects: Sequence[Subject], data: Sequence[DataSet], message: str) -> None:
        for subject in subjects:
            for each in data:
                if self.plan.is_due(subject, each):
                    self.folder.fail(self.plan.parts[subject, each], message, message)

    def _own(self, due: Sequence[Subject]) -> None:
        """The dense model, and the variants that are due."""
        plan = self.plan
        model = plan.load(plan.dtype)
        walk = Walk(model)
        evaluator = Evaluator(model, plan.tokenizer()) if plan.tasks else None
        for group in self._groups(due, model) if due else [[]]:
            modules = {
                recipe: {layer: self.made[recipe].module(walk.experts[layer], layer) for layer in plan.sets[-1]}
                for recipe in group
            }
            subjects: dict[Subject, tuple[Replaced, Saved]] = {DENSE: ({}, plan.saved())}
            for subject in due:
                recipe, layers = plan.variants[subject]
                if recipe in modules:
                    saved = plan.saved(self.made[recipe].bits_saved(layers))
                    subjects[subject] = {layer: modules[recipe][layer] for layer in layers}, saved
            for data, ids_WT in plan.texts.items():
                self._walk(walk, data, ids_WT, {s: found for s, found in subjects.items() if plan.is_due(s, data)})
            for data, task in plan.tasks.items():
                for subject, (replaced, saved) in subjects.items():
                    with walk.replaced(replaced):
                        self._answer(evaluator, subject, data, task, saved)

    def _groups(self, due: Sequence[Subject], model: Any) -> Iterator[list[Recipe]]:
        """Recipes whose factors fit beside the dense model together."""
        if self.plan.device == "cpu":
            free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        else:
            free = torch.cuda.mem_get_info(self.plan.device)[0]
        group: list[Recipe] = []
        taken = 0.0
        for recipe in dict.fromkeys(self.plan.variants[subject][0] for subject in due):
            size = model.dtype.itemsize * sum(int(row["parameters"]) for row in self.made[recipe].rows)
            if group and taken + size > ROOM * free:
                yield group
                group, taken = [], 0.0
            group.append(recipe)
            taken += size
        yield group

    def _walk(
        self, walk: Walk, data: DataSet, ids_WT: Tensor, subjects: Mapping[Subject, tuple[Replaced, Saved]]
    ) -> None:
        """All that are due on a text, in one walk over it."""
        if not subjects:
            return
        started = time.perf_counter()
        variants = [replaced for replaced, _ in subjects.values()]
        losses_VW = self._attempt(list(subjects), data, partial(self._walked, walk, ids_WT, variants))
        if losses_VW is not None:
            seconds = (time.perf_counter() - started) / len(subjects)
            for (subject, (_, saved)), losses_W in zip(subjects.items(), losses_VW, strict=True):
                if not np.isfinite(losses_W).all():
                    self._fail([subject], [data], NO_LOSS)
                    continue
                self._finish_text(subject, data, losses_W, saved, seconds)

    def _walked(self, walk: Walk, ids_WT: Tensor, variants: Sequence[Replaced]) -> list[Vector]:
        """Losses by window of every variant; one without replaced layers is the dense model, at no cost of its own."""
        losses: list[list[Tensor]] = [[] for _ in variants]
        for ids_BT in ids_WT.split(_batch(ids_WT)):
            ids_BT = ids_BT.to(self.plan.device)
            for found, end_BTH in zip(losses, walk.run(ids_BT, variants)[1:], strict=True):
                logits_BTV = walk.logits(ids_BT, end_BTH)
                found.append(window_losses(logits_BTV, ids_BT, self.plan.protocol.scored).cpu())
            self.on_steps(len(variants) * len(ids_BT))
        return [torch.cat(found).numpy() for found in losses]

    def _on_disk(self, found: OnDisk) -> None:
        """A checkpoint as transformers runs it."""
        plan, subject = self.plan, found.subject
        data = [each for each in plan.data if plan.is_due(subject, each)]
        model: Any = None
        for each in data:  # the first loads it
            loads = partial(load_model, found.model, found.model.files(), plan.device, plan.dtype)
            model = self._attempt([subject], each, loads) if model is None else model
            if model is None:
                continue
            if each in plan.texts:
                started = time.perf_counter()
                losses_W = self._attempt([subject], each, partial(self._losses, model, plan.texts[each]))
                if losses_W is not None:
                    self._finish_text(subject, each, losses_W, found.saved, time.perf_counter() - started)
            else:
                evaluator = Evaluator(model, plan.tokenizer())
                self._answer(evaluator, subject, each, plan.tasks[each], found.saved)

    def _losses(self, model: Any, ids_WT: Tensor) -> Vector:
        losses_W = model_losses(model, ids_WT.to(self.plan.device), self.plan.protocol.scored, _batch(ids_WT))
        if not np.isfinite(losses_W).all():
            raise WeightError(NO_LOSS)
        self.on_steps(len(losses_W))
        return losses_W

    def _finish_text(self, subject: Subject, data: DataSet, losses_W: Vector, saved: Saved, seconds: float) -> None:
        dense_W = None if subject.is_dense else self._array(DENSE, data, LOSSES)
        row = perplexity_row(subject, data, losses_W, dense_W, saved)
        row["calibration"] = self.calibrations.get(subject, "")
        self._finish(subject, data, row, {LOSSES: losses_W}, seconds)

    def _answer(self, evaluator: Evaluator | None, subject: Subject, data: DataSet, task: Task, saved: Saved) -> None:
        """One model on one task, where that is due."""
        if evaluator is None or not self.plan.is_due(subject, data):
            return
        started = time.perf_counter()
        correct_N = self._attempt([subject], data, partial(evaluator.run, task, self.plan.request.limit))
        if correct_N is not None:
            dense_N = None if subject.is_dense else self._array(DENSE, data, CORRECT)
            row = accuracy_row(subject, data, correct_N, dense_N, saved)
            row["calibration"] = self.calibrations.get(subject, "")
            self._finish(subject, data, row, {CORRECT: correct_N}, time.perf_counter() - started)
            self.on_steps(task.documents)

    def _macros(self) -> None:
        """Of models whose tasks are all measured."""
        tasks = self.plan.tasks
        for subject, data in self.plan.parts:
            if data in self.plan.data or not self.plan.is_due(subject, data):
                continue
            correct, dense = (
                [found for task in tasks if (found := self._array(model, task, CORRECT)) is not None]
                for model in (subject, DENSE)
            )
            if len(correct) < len(tasks):
                self.folder.fail(self.plan.parts[subject, data], "not all of its tasks were measured", "")
                continue
            first = self.folder.outcomes[self.plan.parts[subject, next(iter(tasks))].key].tables[NAME][0]
            saved = Saved(first["bits_saved"], first["bits_saved_bf16"])
            paired = None if subject.is_dense or len(dense) < len(tasks) else dense
            row = macro_row(subject, data, correct, paired, saved) | {"calibration": first["calibration"]}
            self._finish(subject, data, row, {}, 0.0)

    def _finish(self, subject: Subject, data: DataSet, row: Row, arrays: Mapping[str, Vector], seconds: float) -> None:
        row["bits_saved_of"] = denominator(self.plan.checkpoint)
        ordered = {column: row[column] for column in COLUMNS}
        self.folder.finish(self.plan.parts[subject, data], {NAME: [ordered]}, arrays, seconds)

    def _array(self, subject: Subject, data: DataSet, name: str) -> Vector | None:
        part = self.plan.parts[subject, data]
        return self.folder.arrays(part)[name] if self.folder.outcomes[part.key].state == "done" else None

    def _attempt(self, subjects: Sequence[Subject], data: DataSet, work: Callable[[], T]) -> T | None:
        """What it gives, or None where it fails: then so do these, and the others go on."""
        try:
            return work()
        except Exception as error:
            for subject in subjects:
                part: Part = self.plan.parts[subject, data]
                self.folder.fail(part, *said(part.key, error))
            return None


def _batch(ids_WT: Tensor) -> int:
    """Windows that go through the models at once."""
    return max(1, BATCH_TOKENS // ids_WT.shape[1])
