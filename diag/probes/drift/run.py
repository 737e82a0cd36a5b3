"""One `drift` command: dense model and all variants walked together over the windows of a held-out text.

All variants with factors share one pass of the dense model; a checkpoint on disk is walked beside it, layer by layer.
A chunk of windows goes through a layer before the next layer: each layer's factors are read once a chunk, and, where
the weights are more than `memory`, its dense experts too, which then are never in memory all at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from diag.compression.checkpoints import OnDisk
from diag.compression.factors import Factors, Source, Unmade
from diag.compression.layer_factors import LayerFactors
from diag.compression.plans import VariantsPlan, VariantsRequest
from diag.declare import parse
from diag.inputs.texts import check_texts, text_of
from diag.jobs.work import said
from diag.lockstep.loaded_walk import load_walk, weight_bytes
from diag.lockstep.runner import Lockstep, Resumed, batch_windows, chunk_windows, lockstep, stream_bytes
from diag.lockstep.variant import Recipe, Variant
from diag.lockstep.walk import Replaced, Walk
from diag.models.transformer import load_tokenizer
from diag.probes.drift.columns import CAST, TABLES
from diag.probes.drift.measure import (
    NAME,
    SCOPES,
    VERSION,
    Case,
    Circumstances,
    cases,
    rows,
)
from diag.probes.drift.routing import shows_logits, watching
from diag.probes.drift.statistics import Sums
from diag.runs import partial
from diag.runs.folder import Part, RunFolder, digest
from reports.formats import counted
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.compression.counted import denominator
from tdmoe.problems import InputError

BATCH_TOKENS = 8192  # through the models at once
HEAD = 4000  # characters of the text that another checkpoint's tokenizer is tried on

Make = Callable[[Sequence[Recipe], Source], list[Factors]]
OnSteps = Callable[[int], None]


@dataclass(frozen=True)
class Request(VariantsRequest):
    """One command as typed."""

    model: str
    text: str = "wikitext2"
    tokens: int = 16_384
    window: int | None = None
    scopes: Sequence[str] = SCOPES
    dtype: str = "float32"


class Drift(VariantsPlan):
    """A checked plan. Use as a context manager."""

    def __init__(self, request: Request) -> None:
        """InputError where model, text, recipes, layers or checkpoints do not fit; nothing is run."""
        check_texts(("text", request.text))
        super().__init__(request, request.model)
        self.request = request
        with self.closing():
            self.windows_WT = self._held_out()
            self.cases = [*cases(self.source, request.recipes, self.sets, request.scopes)]
            self.cases += [*map(Case, self.on_disk), *self._casts()]
            self.folder: RunFolder[Part] = self._folder()

    @property
    def due(self) -> list[Case]:
        """Cases still to be measured."""
        pending = {part.key for part in self.folder.pending()}
        return [case for case in self.cases if case.part.key in pending]

    @property
    def steps(self) -> int:
        """Layers of windows that the walk still takes."""
        return len(self.windows_WT) * self.arch.depth if self.due else 0

    @property
    def held_bytes(self) -> int:
        """Bytes of all weights of the models that are walked, in the dtype that they run in."""
        due = {case.variant for case in self.due}
        rounded = [self._other_dtype] if any(case.is_cast for case in self.due) else []
        own = sum(weight_bytes(self.checkpoint, dtype) for dtype in (self._dtype, *rounded))
        beside = [found.checkpoint for variant, found in self.on_disk.items() if variant in due]
        return own + sum(weight_bytes(checkpoint, self._dtype) for checkpoint in beside)

    @property
    def by_layer(self) -> bool:
        """Tell whether experts are read layer by layer, because together with the rest they are more than `memory`."""
        return self.held_bytes > self.request.memory

    def described(self) -> list[str]:
        """Lines for --dry-run: variants, windows, and how the models are held."""
        windows, window = self.windows_WT.shape
        lines = [f"{self.name}: {NAME}, run folder {self.folder.path}", *(case.part.key for case in self.cases)]
        text, how = Path(self.request.text).name, "layer by layer" if self.by_layer else "whole"
        lines += [f"{counted(len(self.cases), 'variant')}, {counted(windows, 'window')} of {window} tokens of {text}"]
        return [*lines, f"weights of {self.held_bytes / 1e9:.2f} GB, held {how}; nothing was run"]

    def notes(self) -> list[str]:
        """Differences from what was asked, or from what is expected."""
        notes = self.notes_on(self.request.text, self.windows_WT, self.request.tokens)
        if self.due and self.by_layer:
            notes.append(
                f"weights of {self.held_bytes / 1e9:.1f} GB are more than --memory {self.request.memory / 1e9:.1f} GB: "
                f"experts are read layer by layer, once for every {counted(self._chunk_windows, 'window')}"
            )
        return notes

    def execute(self, make: Make, on_steps: OnSteps) -> None:
        """Measure what is pending and write the table; `make` gives the factors of recipes."""
        if due := self.due:
            self.folder.begin()
            wanted = list(dict.fromkeys(case.variant.recipe for case in due if case.variant.recipe is not None))
            try:
                factors = make(wanted, self.source) if wanted else []
            except Unmade as error:
                factors = error.made
                self._fail([case for case in due if case.variant.recipe in error.failed], error)
                due = [case for case in due if case.variant.recipe not in error.failed]
            if due:
                self._carry_out(due, {each.recipe: each for each in factors}, on_steps)
        self.folder.write_table(NAME, TABLES[NAME])

    def _carry_out(self, due: Sequence[Case], made: Mapping[Recipe, Factors], on_steps: OnSteps) -> None:
        started = time.perf_counter()
        try:
            sums, about = self._measure(due, made, on_steps)
        except InputError:
            raise
        except Exception as error:
            self._fail(due, error)
            return
        seconds = (time.perf_counter() - started) / len(due)
        for number, case in enumerate(due):
            found = rows(case, sums, number, about, self._known(case.variant, made))
            self.folder.finish(case.part, {NAME: found}, {}, seconds)
        partial.forget(self.folder.path)

    def _fail(self, cases: Sequence[Case], error: Exception) -> None:
        for case in cases:
            self.folder.fail(case.part, *said(case.part.key, error))

    # what is asked

    def _held_out(self) -> Tensor:
        """Windows of the text; InputError where something was calibrated on it, or a checkpoint reads it otherwise."""
        request = self.request
        calibrated = {found.calibrated_on for found in self.on_disk.values() if found.calibrated_on}
        calibrated |= {self.calibration.text} if self.calibration is not None else set()
        windows_WT = self.held_out(request.text, calibrated, request.tokens, request.window)
        for found in self.on_disk.values():
            check_tokenizer(found, self.tokenizer(), text_of("text", request.text)[:HEAD])
        return windows_WT

    @property
    def _dtype(self) -> str:
        """Type that the models run in."""
        return self.run_dtype(self.request.dtype)

    @property
    def _other_dtype(self) -> str:
        """Type that shows what rounding does to the dense model: its own, or float32 where it runs in that."""
        return "float32" if self._dtype != "float32" else self.run_dtype("auto")

    def _casts(self) -> list[Case]:
        return [] if self._other_dtype == self._dtype else [Case(Variant(CAST + self._other_dtype))]

    def _folder(self) -> RunFolder[Part]:
        request, shape = self.request, list(self.windows_WT.shape)
        windows = [*shape, digest(self.windows_WT.tolist())]
        identities: dict[Part, dict[str, Any]] = {}
        for case in self.cases:
            identities[case.part] = {"probe_version": VERSION, "windows": windows, "dtype": self._dtype}
            identities[case.part] |= self.variant_identity(case.variant)
        config = {
            "methods": [recipe.name for recipe in request.recipes] or "none",
            "scope": list(request.scopes),
            "layers": [parse.spans(layers) for layers in self.sets] if request.recipes else "none",
            "projections": request.projections if request.recipes else "none",
            "compressed": [found.name for found in self.on_disk.values()] or "none",
            **{"text": Path(request.text).name, "tokens": self.windows_WT.numel(), "window": shape[1]},
            "dtype": self._dtype,
            "calibration": "none" if self.calibration is None else asdict(self.calibration),
        }
        return self.run_folder(NAME, identities, config, tables=TABLES, **request.folder)

    # the work

    def _measure(
        self, due: Sequence[Case], made: Mapping[Recipe, Factors], on_steps: OnSteps
    ) -> tuple[Sums, Circumstances]:
        """Walk what is left of the windows, saving the sums now and then."""
        depth, (windows, window) = self.arch.depth, self.windows_WT.shape
        walk = self._walk(self.model, self.checkpoint, self._dtype)
        sums = Sums.empty(len(due), depth)
        with LayerFactors(walk, made) as factors:
            lockstep(
                self.windows_WT,
                Lockstep(walk, [self._model(case, factors) for case in due], self._batch_windows),
                sums,
                Resumed(self.folder.path, [self.folder.identities[case.part] for case in due], self.request.fresh),
                chunk=self._chunk_windows,
                on_step=lambda step: on_steps(len(step.ids_BT)),
                on_resume=lambda done: on_steps(done * depth),
            )
        columns = {"windows": windows, "tokens": windows * window, "text": Path(self.request.text).name}
        columns |= {"dtype": self._dtype, "bits_saved_of": denominator(self.checkpoint)}
        return sums, Circumstances(columns, frozenset(walk.experts), shows_logits(walk.model))

    def _walk(self, model: Any, checkpoint: Checkpoint, dtype: str) -> Walk:
        """A model's walk, whole in memory or by layer."""
        memory = self.request.memory if self.by_layer else None
        return load_walk(model, checkpoint, self.device, dtype, layer_memory=memory, watching=watching)

    def _model(self, case: Case, factors: LayerFactors) -> Replaced | Walk:
        """Factors in the dense model, or the walk of a model of its own."""
        if (recipe := case.variant.recipe) is not None:
            return factors.of(recipe, case.variant.layers)
        if case.is_cast:
            return self._walk(self.model, self.checkpoint, self._other_dtype)
        found = self.on_disk[case.variant]
        walk = self._walk(found.model, found.checkpoint, self._dtype)
        if len(walk.layers) != self.arch.depth:
            raise InputError(
                "compressed",
                found.name,
                f"runs {len(walk.layers)} layers, the model {self.arch.depth}",
                "give a checkpoint that was made of this model",
            )
        return walk

    @property
    def _batch_windows(self) -> int:
        """Windows through the models at once: a quarter of the memory for all residual streams that there may be."""
        window = self.windows_WT.shape[1]
        held = stream_bytes(window, self.arch.hidden, self._dtype, 1 + len(self.due))
        return max(1, min(batch_windows(BATCH_TOKENS, window), self.request.memory // 4 // held))

    @property
    def _chunk_windows(self) -> int:
        shape = self.windows_WT.shape[1], self.arch.hidden, self._dtype
        return chunk_windows(self._batch_windows, *shape, 1 + len(self.due), self.request.memory)

    def _known(self, variant: Variant, made: Mapping[Recipe, Factors]) -> dict[str, Any]:
        """Bits saved and calibration, where they are known."""
        if variant.recipe is not None:
            factors = made[variant.recipe]
            return {"bits_saved": factors.bits_saved(variant.layers), "calibration": factors.calibration}
        found = self.on_disk.get(variant)
        return (
            {"calibration": ""}
            if found is None
            else {"bits_saved": found.saved.bits_saved, "calibration": found.calibration}
        )


def check_tokenizer(found: OnDisk, tokenizer: Any, text: str) -> None:
    """InputError where its tokenizer, if it has one, reads the text differently."""
    try:
        theirs = load_tokenizer(found.model, found.checkpoint.files)
    except InputError:
        return
    ours, other = (t(text, add_special_tokens=False, verbose=False)["input_ids"] for t in (tokenizer, theirs))
    if ours != other:
        raise InputError(
            "compressed",
            found.name,
            "its tokenizer reads the text as other tokens than the model's",
            "compare checkpoints of the same vocabulary",
        )
