"""A checked request of `quality`: models, texts in windows, tasks, and a part for each model on each.

Everything that headers, texts and tasks can tell is found here, before the first weight is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from diag.compression.checkpoints import OnDisk
from diag.compression.compressing import Saved
from diag.compression.plans import VariantsPlan, VariantsRequest
from diag.declare import parse
from diag.declare.defaults import CALIBRATION_TEXT
from diag.inputs.texts import check_texts, load_text, text_notes, text_of
from diag.inputs.windows import window_of
from diag.lockstep.variant import Variant
from diag.probes.quality import zero_shot
from diag.probes.quality.columns import METRIC, PERPLEXITY, TABLES
from diag.probes.quality.measure import (
    NAME,
    VERSION,
    DataSet,
    macro,
    part_of,
)
from diag.probes.quality.protocol import Protocol
from diag.probes.quality.zero_shot import Task
from diag.runs.folder import Part, RunFolder
from reports.formats import counted
from tdmoe.compression.counted import bits, denominator, parameters
from tdmoe.problems import InputError


@dataclass(frozen=True)
class Request(VariantsRequest):
    """One command as typed. `window` and `stride` are None for the model's own, and for windows without overlap."""

    model: str
    texts: Sequence[str] = ("wikitext2",)
    windows: int = 64
    window: int | None = None
    stride: int | None = None
    join: str = "as-is"
    bos: str = "none"
    tasks: Sequence[str] = ()
    task_data: Path | None = None
    limit: int | None = None
    dtype: str = "auto"


class Plan(VariantsPlan):
    """A checked plan. Use as a context manager."""

    same = ("vocab_size",)

    def __init__(self, request: Request) -> None:
        """InputError where model, texts, tasks, recipes, layers or checkpoints do not fit."""
        check_texts(*(("texts", name) for name in request.texts))
        super().__init__(request, request.model)
        self.request = request
        with self.closing():
            window = window_of(self.checkpoint.config, request.window)
            stride = window if request.stride is None else request.stride
            self.protocol = Protocol(window, stride, request.windows, request.join, request.bos)
            self.dtype = self.run_dtype(request.dtype)
            self.texts = self._texts()
            self.tasks = self._tasks()
            self.variants = [self.source.variant(r, layers) for r in request.recipes for layers in self.sets]
            self.parts = self._parts()
            self.folder = self._folder()

    @property
    def data(self) -> list[DataSet]:
        """Texts, then tasks."""
        return [*self.texts, *self.tasks]

    @property
    def due_variants(self) -> list[Variant]:
        """Variants of which something is to be measured with factors."""
        return [variant for variant in self.variants if self.is_due(variant)]

    @property
    def steps(self) -> int:
        """Windows and documents that are still to be done, of all models together."""
        sizes = {data: len(ids_WT) for data, ids_WT in self.texts.items()}
        sizes |= {data: task.documents for data, task in self.tasks.items()}
        return sum(sizes.get(data, 0) for variant, data in self.parts if self.is_due(variant, data))

    def described(self) -> list[str]:
        """Lines for --dry-run: models, data sets, and what is to be done."""
        lines = [f"{self.name}: {NAME}, run folder {self.folder.path}", *(part.key for part in self.parts.values())]
        lines += [data.protocol for data in self.data]
        return [*lines, f"{counted(len(self.parts), 'part')}, {self.steps:,} windows and documents; nothing was run"]

    def notes(self) -> list[str]:
        """Differences from what was asked."""
        asked = self.request.windows
        short = [
            f"--texts {data.name}: holds {counted(len(ids_WT), 'whole window')}, fewer than --windows {asked}"
            for data, ids_WT in self.texts.items()
            if len(ids_WT) < asked
        ]
        return [*super().notes(), *text_notes(*(("--texts", name) for name in self.request.texts)), *short]

    def is_due(self, variant: Variant, data: DataSet | None = None) -> bool:
        """Tell whether it is not measured yet: on this text or task, or on any."""
        found = self.data if data is None else [data]
        return any(self.folder.outcomes[self.parts[variant, each].key].state == "pending" for each in found)

    def saved(self, bits_saved: float = 0.0) -> Saved:
        """The same against the bits of the model in bf16."""
        bf16 = 16 * parameters(self.checkpoint)
        of_bf16 = 1 - bits(self.checkpoint) * (1 - bits_saved) / bf16
        return Saved(bits_saved, of_bf16, denominator(self.checkpoint))

    def variant_on(self, found: OnDisk) -> Variant:
        """The variant that a checkpoint is; one that was rebuilt goes by its name alone."""
        if not found.rebuilt:
            return found.variant
        return replace(found.variant, method=found.name, ratio=None, layers=(), projections="")

    def _texts(self) -> dict[DataSet, Tensor]:
        """Windows of every text; InputError where one is a calibration text."""
        request = self.request
        found: dict[DataSet, Tensor] = {}
        tokenizer = self.tokenizer() if request.texts else None
        calibrated = [CALIBRATION_TEXT, *(each.calibrated_on for each in self.on_disk.values() if each.calibrated_on)]
        contents = {_known(name) for name in calibrated}
        if self.calibration is not None:
            contents.add(text_of("calibration_text", self.calibration.text))
        for name in request.texts:
            text, short = text_of("texts", name), Path(name).name
            if text in contents:
                raise InputError("texts", name, "is a calibration text", "evaluate on another, as wikitext2 or c4-eval")
            if short in {data.name for data in found}:
                raise InputError("texts", name, f"there is another {short}", "give each text once, each its own name")
            ids_WT = self.protocol.cut(tokenizer, text, name)
            stated = f"{short}: {self.protocol.stated()}, {self.dtype} weights"
            identity = f"{stated}, {len(ids_WT)} windows, {hashlib.sha256(text.encode()).hexdigest()}"
            found[DataSet(short, PERPLEXITY, stated, identity, len(ids_WT) * self.protocol.scored)] = ids_WT
        return found

    def _tasks(self) -> dict[DataSet, Task]:
        request = self.request
        if not request.tasks:
            return {}
        tokenizer = self.tokenizer()
        if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
            raise InputError(
                "tasks",
                ",".join(request.tasks),
                "lm-eval needs a token that begins or ends a text, the tokenizer has neither",
                "give it one in tokenizer_config.json, or leave the tasks out",
            )
        found = {}
        for task in zero_shot.load_tasks(request.tasks, request.task_data, request.limit):
            stated = f"{task.stated()}, {self.dtype} weights"
            found[DataSet(task.name, METRIC, stated, f"{stated} {task.identity}")] = task
        return found

    def _parts(self) -> dict[tuple[Variant, DataSet], Part]:
        """Dense first; the macro average after a model's tasks."""
        variants = [Variant(), *self.variants, *self.on_disk]
        data = [*self.data, *([macro(list(self.tasks))] if len(self.tasks) > 1 else [])]
        if not data:
            raise InputError("texts", why="nothing to measure", remedy="give a text, or --tasks")
        return {(variant, d): part_of(variant, d.name, d.metric) for variant in variants for d in data}

    def _folder(self) -> RunFolder[Part]:
        request = self.request
        identities: dict[Part, dict[str, Any]] = {}
        for (variant, data), part in self.parts.items():
            identities[part] = {"probe_version": VERSION, "data": data.identity, **self.variant_identity(variant)}
        config = {
            "texts": [data.name for data in self.texts],
            "tasks": [data.name for data in self.tasks],
            "protocol": self.protocol.stated(),
            "windows": request.windows or "all",
            "limit": request.limit,
            "dtype": self.dtype,
            "compressed": [path.name for path in request.compressed],
        }
        if request.recipes:
            config |= {
                "methods": [recipe.name for recipe in request.recipes],
                "layers": [parse.spans(layers) for layers in self.sets],
                "projections": request.projections,
            }
        if self.calibration is not None:
            config |= {f"calibration {name}": value for name, value in asdict(self.calibration).items()}
        return self.run_folder(NAME, identities, config, tables=TABLES, **request.folder)


def _known(name: str) -> str | None:
    """Content of a text; None where there is none, which others complain of."""
    try:
        return load_text(name)
    except ValueError:
        return None
