"""One `drift` command: dense model and all variants walked together over the windows of a held-out text.

All variants with factors share one pass of the dense model; a checkpoint on disk is walked beside it, layer by layer.
A chunk of windows goes through a layer before the next layer: each layer's factors are read once a chunk, and, where
the weights are more than `memory`, its dense experts too, which then are never in memory all at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diag.asked import AskedVariants
from diag.compression.compress_run import Compression
from diag.compression.factors import Factors, Recipe, Source, Unmade, calibration_of, made_by
from diag.compression.layer_factors import Shelf
from diag.declare import parse
from diag.inputs.texts import check_texts, text_of
from diag.jobs.work import said
from diag.models.hollow import Experts
from diag.models.open_model import OpenModel
from diag.models.transformer import load_model
from diag.models.walk import Stream, Walk
from diag.probes.drift.compared import Companion, check_tokenizer, open_companion
from diag.probes.drift.measure import (
    ALL,
    CAST,
    COLUMNS,
    NAME,
    SCOPES,
    TABLES,
    VERSION,
    Circumstances,
    Variant,
    rows,
    variants,
)
from diag.probes.drift.routing import Routing, shows_logits, watching
from diag.probes.drift.statistics import Sums, compared, unchanged
from diag.runs import partial
from diag.runs.folder import Part, RunFolder, digest
from reports.formats import counted
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.compression.counted import denominator
from tdmoe.problems import InputError
from tdmoe.stacks.architecture import architecture

BATCH_TOKENS = 8192  # through the models at once
SAVE_SECONDS = 20.0
HEAD = 4000  # characters of the text that another checkpoint's tokenizer is tried on

Make = Callable[[Sequence[Recipe], Source], list[Factors]]
OnSteps = Callable[[int], None]


@dataclass(frozen=True)
class Request(AskedVariants):
    """One command as typed."""

    model: str
    text: str = "wikitext2"
    tokens: int = 16_384
    window: int | None = None
    scopes: Sequence[str] = SCOPES
    dtype: str = "float32"


class Drift(OpenModel):
    """A checked plan. Use as a context manager."""

    def __init__(self, request: Request) -> None:
        """InputError where model, text, recipes, layers or checkpoints do not fit; nothing is run."""
        check_texts(("text", request.text))
        request.check()
        super().__init__(request.model, request.device, request.revision)
        self.request = request
        self._opened = ExitStack()
        self._opened.callback(self.checkpoint.close)
        try:
            self.sets = request.layer_sets(self.arch.layers)
            self.companions: dict[Variant, Companion] = {}
            for path in request.compressed:
                self._add_companion(path)
            self.calibration = calibration_of(request.recipes, request.calibration)
            self.windows_WT = self._held_out()
            self.variants = [*variants(request.recipes, self.sets, request.scopes, request.projections)]
            self.variants += [*self.companions, *self._casts()]
            self.source = request.source(self, request.model, self.sets[-1], self.calibration)
            for command in self.source.commands(request.recipes):
                with Compression(command):
                    pass
            self.folder: RunFolder[Part] = self._folder()
            self._opened.callback(self.folder.close)
        except BaseException:
            self._opened.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def due(self) -> list[Variant]:
        """What is still to be measured."""
        pending = {part.key for part in self.folder.pending()}
        return [variant for variant in self.variants if variant.part.key in pending]

    @property
    def steps(self) -> int:
        """Layers of windows that the walk still takes."""
        return len(self.windows_WT) * self.arch.depth if self.due else 0

    @property
    def held_bytes(self) -> int:
        """Of all weights of the models that are walked, in the dtype that they run in."""
        casts = [variant for variant in self.due if variant.is_cast]
        whole = weight_bytes(self.checkpoint, _itemsize(self._dtype))
        rounded = weight_bytes(self.checkpoint, _itemsize(self._other_dtype)) if casts else 0
        due = set(self.due)
        beside = [found.checkpoint for variant, found in self.companions.items() if variant in due]
        return whole + rounded + sum(weight_bytes(checkpoint, _itemsize(self._dtype)) for checkpoint in beside)

    @property
    def by_layer(self) -> bool:
        """Whether experts are read layer by layer, because together with the rest they are more than `memory`."""
        return self.held_bytes > self.request.memory

    def described(self) -> list[str]:
        """For --dry-run: variants, windows, and how the models are held."""
        windows, window = self.windows_WT.shape
        lines = [f"{self.name}: {NAME}, run folder {self.folder.path}", *(found.part.key for found in self.variants)]
        text, how = Path(self.request.text).name, "layer by layer" if self.by_layer else "whole"
        lines += [
            f"{counted(len(self.variants), 'variant')}, {counted(windows, 'window')} of {window} tokens of {text}"
        ]
        return [*lines, f"weights of {self.held_bytes / 1e9:.2f} GB, held {how}; nothing was run"]

    def notes(self) -> list[str]:
        """What differs from what was asked, or from what is expected."""
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
            wanted = list(dict.fromkeys(variant.recipe for variant in due if variant.recipe is not None))
            try:
                factors = make(wanted, self.source) if wanted else []
            except Unmade as error:
                factors = error.made
                for variant in [variant for variant in due if variant.recipe in error.failed]:
                    self.folder.fail(variant.part, *said(variant.part.key, error))
                    due.remove(variant)
            made = {each.recipe: each for each in factors}
            started = time.perf_counter()
            try:
                sums, about = self._measure(due, made, on_steps)
            except InputError:
                raise
            except Exception as error:
                for variant in due:
                    self.folder.fail(variant.part, *said(variant.part.key, error))
            else:
                seconds = (time.perf_counter() - started) / len(due)
                for number, variant in enumerate(due):
                    saved = self._bits_saved(variant, made)
                    found = {NAME: rows(variant, sums, number, about, saved, self._calibration(variant, made))}
                    self.folder.finish(variant.part, found, {}, seconds)
                partial.forget(self.folder.path)
        self.folder.write_table(NAME, COLUMNS)

    # what is asked

    def _add_companion(self, path: Path) -> None:
        found = open_companion(path, self.checkpoint)
        self._opened.callback(found.checkpoint.close)
        if found.name in {other.name for other in self.companions.values()}:
            raise InputError(
                "compressed", path, f"there is another {found.name}", "give each folder once, by its own name"
            )
        variant = Variant(found.method, found.ratio, ALL, found.layers, found.projections, found.name)
        self.companions[variant] = found

    def _held_out(self) -> Tensor:
        """Windows of the text; InputError where something was calibrated on it, or a companion reads it otherwise."""
        request = self.request
        text = text_of("text", request.text)
        calibrated = {found.calibrated_on for found in self.companions.values() if found.calibrated_on}
        calibrated |= {self.calibration.text} if self.calibration is not None else set()
        if text in {text_of("calibration_text", name) for name in calibrated}:
            raise InputError("text", request.text, "is the calibration text", "give another, as wikitext2 or enwik8")
        windows_WT = self.windows("text", request.text, request.tokens, request.window)
        tokenizer = self.tokenizer()
        for found in self.companions.values():
            check_tokenizer(found, tokenizer, text[:HEAD])
        return windows_WT

    @property
    def _own_dtype(self) -> str:
        return self.run_dtype("auto")

    @property
    def _dtype(self) -> str:
        """What the models run in."""
        return self.run_dtype(self.request.dtype)

    @property
    def _other_dtype(self) -> str:
        """What the dense model is run in to see what rounding does: its own, or float32 where it runs in that."""
        return "float32" if self._dtype != "float32" else self._own_dtype

    def _casts(self) -> list[Variant]:
        return [] if self._other_dtype == self._dtype else [Variant(CAST + self._other_dtype)]

    def _folder(self) -> RunFolder[Part]:
        request = self.request
        made: list[Any] = [request.seed, parse.spans(self.sets[-1]), made_by(request.recipes)]  # layers share a budget
        if (asked := self.calibration) is not None:
            made += [asdict(asked), digest(text_of("calibration_text", asked.text))]
        shape, content = list(self.windows_WT.shape), digest(self.windows_WT.tolist())
        identities: dict[Part, dict[str, Any]] = {}
        for variant in self.variants:
            identity = {"probe_version": VERSION, "variant": digest(asdict(variant)), "windows": [*shape, content]}
            identity |= {"dtype": self._dtype, "made": digest(made) if variant.recipe else ""}
            if variant in self.companions:
                identity["checkpoint"] = self.companions[variant].identity
            identities[variant.part] = identity
        config = {
            "methods": [recipe.name for recipe in request.recipes] or "none",
            "scope": list(request.scopes),
            "layers": [parse.spans(layers) for layers in self.sets] if request.recipes else "none",
            "projections": request.projections if request.recipes else "none",
            "compressed": [found.name for found in self.companions.values()] or "none",
            **{"text": Path(request.text).name, "tokens": self.windows_WT.numel(), "window": shape[1]},
            "dtype": self._dtype,
            "calibration": "none" if self.calibration is None else asdict(self.calibration),
        }
        return self.run_folder(NAME, identities, config, tables=TABLES, **request.folder)

    # the work

    def _measure(
        self, due: Sequence[Variant], made: Mapping[Recipe, Factors], on_steps: OnSteps
    ) -> tuple[Sums, Circumstances]:
        """Walk what is left of the windows, saving the sums now and then."""
        walk = self._walk(self.model, self.checkpoint, self._dtype)
        shelf = Shelf(walk, made)
        replaced = [variant for variant in due if variant.recipe is not None]
        beside = [variant for variant in due if variant.recipe is None]
        walks = [self._walk_beside(variant) for variant in beside]
        numbers = [due.index(variant) for variant in replaced], [due.index(variant) for variant in beside]
        identity = [self.folder.identities[variant.part] for variant in due]
        sums, done = self._partial(identity, len(due))
        on_steps(done * self.arch.depth)
        saved, routers = time.monotonic(), frozenset(walk.experts)
        for chunk_WT in self.windows_WT[done:].split(self._chunk_windows):
            batches = list(chunk_WT.to(self.device).split(self._batch_windows))
            own = walk.steps(batches, [shelf.variant(v.recipe, v.layers) for v in replaced])
            for (layer, batch, streams), *others in zip(own, *(w.steps(batches) for w in walks), strict=True):
                add_layer(sums, layer, streams, [found[0] for _, _, found in others], *numbers)
                on_steps(len(batches[batch]))
            done += len(chunk_WT)
            if time.monotonic() - saved > SAVE_SECONDS:
                partial.save(self.folder.path, identity, done, vars(sums))
                saved = time.monotonic()
        counted = denominator(self.checkpoint)
        about = (Path(self.request.text).name, self._dtype, routers, shows_logits(walk.model), counted)
        return sums, Circumstances(len(self.windows_WT), self.windows_WT.shape[1], *about)

    def _walk(self, model: Any, checkpoint: Checkpoint, dtype: str) -> Walk:
        """Over a model, whole in memory or by layer."""
        loaded = load_model(model, checkpoint.files, self.device, dtype, hollow=self.by_layer)
        walk = Walk(loaded, watch=watching(loaded))
        if self.by_layer:
            walk.resident = Experts(walk, checkpoint, architecture(checkpoint.config), self.request.memory).resident
        return walk

    def _walk_beside(self, variant: Variant) -> Walk:
        if variant.is_cast:
            return self._walk(self.model, self.checkpoint, self._other_dtype)
        found = self.companions[variant]
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
    def _stream_bytes(self) -> int:
        """Of a window, in all residual streams that there may be."""
        streams = 1 + len(self.due)
        return int(streams * self.windows_WT.shape[1] * self.arch.hidden * _itemsize(self._dtype))

    @property
    def _batch_windows(self) -> int:
        most = max(1, BATCH_TOKENS // self.windows_WT.shape[1])
        return max(1, min(most, self.request.memory // 4 // self._stream_bytes))

    @property
    def _chunk_windows(self) -> int:
        """Windows that are walked through a layer before the next layer: whole batches, a quarter of the memory."""
        batches = self.request.memory // 4 // (self._stream_bytes * self._batch_windows)
        return max(1, batches) * self._batch_windows

    def _bits_saved(self, variant: Variant, made: Mapping[Recipe, Factors]) -> float | None:
        if variant.recipe is not None:
            return made[variant.recipe].bits_saved(variant.layers)
        return self.companions[variant].bits_saved if variant in self.companions else None

    def _calibration(self, variant: Variant, made: Mapping[Recipe, Factors]) -> str:
        if variant.recipe is not None:
            return made[variant.recipe].calibration
        return self.companions[variant].calibration if variant in self.companions else ""

    def _partial(self, identity: Any, count: int) -> tuple[Sums, int]:
        """Sums of an earlier run that was stopped, if they are of the same variants, and how many windows."""
        found = None if self.request.fresh else partial.load(self.folder.path, identity)
        return (Sums.empty(count, self.arch.depth), 0) if found is None else (Sums(**found[0]), found[1])


def add_layer(
    sums: Sums,
    layer: int,
    streams: Sequence[Stream],
    others: Sequence[Stream],
    replaced: Sequence[int],
    beside: Sequence[int],
) -> None:
    """Compare every stream with the dense model's, which is the first; `replaced` and `beside` are their places."""
    dense = streams[0]
    routing: Routing = dense.seen
    for stream in streams:
        members = [replaced[member] for member in stream.members if member >= 0]
        if stream is dense:
            sums.add(members, layer, unchanged(len(dense.h_BTH), routing))
        else:
            sums.add(members, layer, compared(dense.h_BTH, stream.h_BTH, routing, stream.seen))
    for number, stream in zip(beside, others, strict=True):
        sums.add([number], layer, compared(dense.h_BTH, stream.h_BTH, routing, stream.seen))


def weight_bytes(checkpoint: Checkpoint, itemsize: int) -> int:
    """Of all tensors in memory, from headers; those of packed four-bit weights count twice."""
    entries = map(checkpoint.entry, checkpoint.names())
    return sum(max(entry.nbytes, prod(entry.shape) * itemsize * (1 + (entry.dtype == "U8"))) for entry in entries)


def _itemsize(dtype: str) -> int:
    return int(getattr(torch, dtype).itemsize)
