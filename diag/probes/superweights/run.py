"""The work of `superweights`, part by part, each saved when it is done.

discovery            super weights, spikes, and mean squares of all inputs: in the loaded model
recovery-MATRIX      groups of entries of each matrix that this led to, against SVD rank: from its weights alone
methods-MATRIX       the same entries in factors of methods, which the jobs of `compress` make
ablation             those entries set to zero: in the loaded model

Which matrices are followed is known once the discovery is done, so the run folder is opened for that alone first.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from diag.compression.calibrating import Settings as CalibrationSettings
from diag.compression.factors import Factors, Source, Unmade, calibration_of, recipes
from diag.compression.plans import ModelRequest
from diag.declare import parse
from diag.declare.defaults import MEMORY_BYTES
from diag.inputs.texts import check_texts, text_notes, text_of
from diag.jobs.work import said
from diag.lockstep.variant import Recipe, Variant
from diag.models.open_model import OpenModel
from diag.probes.superweights.columns import NAME, TABLES, VERSION
from diag.probes.superweights.discovery import Arrays, Row, Search, labels, mean_square, search, site_of_row, tokens_of
from diag.probes.superweights.entry_recovery import Estimate, Tracked, method_rows, svd_rows, track
from diag.probes.superweights.known import published
from diag.probes.superweights.method_recovery import of_matrix, of_stack
from diag.probes.superweights.settings import Settings
from diag.probes.superweights.zeroing import Removal, ablation_rows, beside_random
from diag.runs.folder import Part, RunFolder, digest
from reports.formats import counted
from tdmoe import methods
from tdmoe.checkpoint.encodings import PLAIN
from tdmoe.problems import InputError
from tdmoe.runtime.down_projections import DownProjections, Entry, Site, site_of
from tdmoe.stacks.architecture import language_config
from tdmoe.stacks.locate import open_stack

Tables = dict[str, list[Row]]
MakeFactors = Callable[[Sequence[Recipe], Source], list[Factors]]


@dataclass(frozen=True)
class Request(ModelRequest):
    """One command as typed."""

    model: str
    settings: Settings
    memory: int = MEMORY_BYTES


@dataclass(frozen=True)
class Followed:
    """A matrix whose entries are followed, and why: superweight, strongest_spike or control."""

    site: Site
    role: str
    super_weights: tuple[tuple[int, int], ...] = ()

    @property
    def name(self) -> str:
        expert = "" if self.site.expert is None else f"-e{self.site.expert:03d}"
        return f"l{self.site.layer:03d}-{self.site.projection}{expert}".replace("_", "-")


class SuperWeights:
    """A checked plan. Use as a context manager; it holds the checkpoint open."""

    def __init__(self, request: Request) -> None:
        """InputError before the model is loaded."""
        self.request, self.settings = request, request.settings
        given = request.settings
        check_texts(("text", given.text), ("eval_text", given.eval_text))
        self.recipes = recipes(given.methods, given.ratios) if given.methods else []
        self.opened = OpenModel(request.model, request.device, request.revision, experts=False)
        with self.opened.closing():
            self._check()
            self.folder = self._folder([Part(NAME, "discovery")], request.out)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.__exit__()

    def _check(self) -> None:
        given, opened = self.settings, self.opened
        if not math.isfinite(given.threshold):
            raise InputError("threshold", given.threshold, "is no finite number", "give one above 0")
        if text_of("eval_text", given.eval_text) == text_of("text", given.text):
            raise InputError("eval_text", given.eval_text, "is the --text that entries are chosen by", "give another")
        self.layers = parse.layers(self.request.layers, range(_depth(opened)), "decoder layer")
        if given.control_layer is not None and given.control_layer not in self.layers:
            raise InputError(
                "control_layer", given.control_layer, f"is none of the layers, {parse.spans(self.layers)}", "give one"
            )
        self._stacks = not opened.dense and opened.arch.family.factor_form  # whether they can be compressed
        for recipe in self.recipes if self._stacks else []:
            method, options = methods.parse(recipe.method)
            method.check(opened.arch.shape("down"), options, recipe.ratio or 0.0)
        self.windows_WT = opened.windows("text", given.text, given.tokens, given.window)
        window = self.windows_WT.shape[1]
        self.evaluation_WT = opened.windows("eval_text", given.eval_text, given.eval_windows * window, window)
        self.prompt_T = torch.tensor(opened.tokenizer()(given.prompt, verbose=False)["input_ids"], dtype=torch.long)
        if len(self.prompt_T) == 0:
            raise InputError("prompt", why="has no tokens", remedy="give a sentence")

    def described(self) -> list[str]:
        """Lines for --dry-run: what is looked for, followed and taken out."""
        searched, evaluated = self.windows_WT, self.evaluation_WT
        return [
            f"{self.opened.name}: superweights, run folder {self.folder.path}",
            f"discovery: the prompt ({counted(len(self.prompt_T), 'token')}) and {counted(len(searched), 'window')} "
            f"of {searched.shape[1]} tokens, and again for every super weight that is found",
            "recovery: a matrix for every projection with a super weight, and a control",
            f"methods: {', '.join(recipe.name for recipe in self.recipes) or 'none'}",
            f"ablation: at most {counted(self.passes, 'window')} of {evaluated.shape[1]} tokens, "
            f"{len(evaluated)} a pass",
            f"{self.opened.checkpoint.nbytes() / 1e9:.2f} GB to read and to hold, the loaded model; nothing was run",
        ]

    def notes(self) -> list[str]:
        """Differences from what was asked."""
        given = self.settings
        notes = self.opened.notes_on(given.text, self.windows_WT, given.tokens)
        notes += text_notes(("--eval-text", given.eval_text))
        if (windows := len(self.evaluation_WT)) < given.eval_windows:
            notes.append(
                f"--eval-text {given.eval_text}: holds {counted(windows, 'whole window')}, "
                f"fewer than {given.eval_windows}"
            )
        return notes

    def discover(self, on_window: Callable[[int], None], notes: Sequence[str] = ()) -> list[str]:
        """Find super weights, unless that is done, and open the run folder for all that follows; its notes."""
        notes = [*notes, *self.notes()]
        self.folder.open(fresh=self.request.fresh, notes=notes)
        (part,) = self.folder.jobs
        if self.folder.pending():
            self.folder.begin()
            self._do(part, lambda: self._discovery(on_window))
        if self.folder.failures():
            return []
        self.found = self.folder.rows("superweights")
        self.inputs: Arrays = self.folder.arrays(part)
        self.followed = list(self._followed())
        parts = {part: None, **{Part(NAME, f"recovery-{f.name}", _about(f)): f for f in self.followed}}
        parts |= {Part(NAME, f"methods-{f.name}", _about(f)): f for f in self.followed if self._has_methods(f)}
        parts |= {Part(NAME, "ablation"): None}
        self.parts = parts
        path = self.folder.path
        self.folder.close()
        self.folder = self._folder(list(parts), path)
        return self.folder.open(notes=notes)

    def make_factors(self, make: MakeFactors) -> None:
        """Factors of the methods whose part is pending: made, or found, by the jobs of `compress`."""
        if self.folder.pending():
            self.folder.begin()
        pending = [p for p in self.folder.pending() if p.name.startswith("methods-") and p.labels["expert"] is not None]
        self._made: list[Factors] = []
        try:
            self._made = make(self.recipes, self._source) if pending else []
        except (InputError, Unmade) as error:
            for part in pending:
                self._fail(part, error)

    def execute(self, on_part: Callable[[str], None], on_window: Callable[[int], None]) -> None:
        """Do what is pending, and write the tables."""
        for part in [part for part in self.folder.pending() if self.folder.outcomes[part.key].state == "pending"]:
            followed = self.parts[part]
            if followed is None:
                self._do(part, lambda part=part: (self._ablation(part, on_window), {}))  # type: ignore[misc]
            else:
                work = self._recovery if part.name.startswith("recovery-") else self._methods
                self._do(part, lambda work=work, followed=followed: (work(followed), {}))  # type: ignore[misc]
            on_part(part.key)
        self.write_tables()

    def write_tables(self) -> None:
        """Write tables of all that is done; a part that failed is a row of its first table."""
        first = {"discovery": "superweights", "recovery": "entries", "methods": "recovery", "ablation": "ablation"}
        for table, columns in TABLES.items():
            self.folder.write_table(table, columns, lambda p, t=table: first[p.name.partition("-")[0]] == t)  # type: ignore[misc]

    def _do(self, part: Part, work: Callable[[], tuple[Tables, Arrays]]) -> None:
        started = time.perf_counter()
        try:
            self.folder.finish(part, *work(), time.perf_counter() - started)
        except OSError:
            raise
        except Exception as error:
            self._fail(part, error)

    def _fail(self, part: Part, error: Exception) -> None:
        self.folder.fail(part, *said(part.key, error))

    def _generator(self, part: Part) -> torch.Generator:
        seed = hashlib.sha256(f"{self.request.seed} {part.key}".encode()).digest()[:4]
        return torch.Generator().manual_seed(int.from_bytes(seed))

    @cached_property
    def _projections(self) -> DownProjections:
        return DownProjections(self.opened.load(), self.layers)

    def _discovery(self, on_window: Callable[[int], None]) -> tuple[Tables, Arrays]:
        given, known = self.settings, published(self.opened.name)
        looked_at = Search(self.prompt_T, self.windows_WT, given.threshold, given.most, known)
        tables, arrays = search(self._projections, looked_at, lambda: on_window(1))
        return tables, arrays

    def strongest(self) -> dict[str, Any]:
        """The row of the strongest spike, whether or not it is a super weight's."""
        return max(self.folder.rows("spikes"), key=lambda row: (row["same_token"], _strength(row)))

    def _followed(self) -> Iterator[Followed]:
        """Every matrix with a super weight, otherwise that of the strongest spike; and a control."""
        entries: dict[Site, list[tuple[int, int]]] = {}
        for row in self.found:
            if row["status"] != "none_found":
                entries.setdefault(site_of_row(row), []).append((int(row["row"]), int(row["column"])))
        sites = [Followed(site, "superweight", tuple(places)) for site, places in entries.items()]
        if not sites:
            sites = [Followed(site_of_row(self.strongest()), "strongest_spike")]
        yield from sites
        if (control := self._control([followed.site for followed in sites])) is not None:
            yield Followed(control, "control")

    def _control(self, taken: Sequence[Site]) -> Site | None:
        """Projection with most tokens in the middle layer without super weight, of the same kind if there is one."""
        asked, busy = self.settings.control_layer, {site.layer for site in taken}
        layers = [n for n in self.layers if n not in busy and tokens_of(self.inputs, n).any()]
        alike = [n for n in layers if self._routed(n) == (taken[0].expert is not None)]
        middle = (self.layers[0] + self.layers[-1]) / 2
        layer = asked if asked is not None else min(alike or layers, key=lambda n: (abs(n - middle), n), default=None)
        if layer is None or not (tokens_E := tokens_of(self.inputs, layer)).any():
            return None
        site = Site(layer, "down", int(tokens_E.argmax()) if self._routed(layer) else None)
        return None if site in taken else site

    def _routed(self, layer: int) -> bool:
        return not self.opened.dense and layer in self.opened.arch.layers

    def _has_methods(self, followed: Followed) -> bool:
        return bool(self.recipes) and (followed.site.expert is None or self._stacks)

    def matrix(self, site: Site) -> Tensor:
        """W_OI from the checkpoint. InputError where it is not stored as plain floats."""
        checkpoint = self.opened.checkpoint
        if site.expert is not None:
            stack = open_stack(checkpoint, self.opened.arch, site.layer, site.projection)
            return stack.weights(site.expert, site.expert + 1)[0]
        name = next((n for n in checkpoint.names() if site_of(n.removesuffix(".weight")) == site), None)
        if name is None or (entry := checkpoint.entry(name)).dtype not in PLAIN:
            raise InputError(f"{site}: is not in the checkpoint as a plain weight; use a bf16, fp16 or fp32 version")
        W_OI = torch.empty(entry.shape, dtype=PLAIN[entry.dtype])
        checkpoint.read_into(entry, 0, _bytes(W_OI))
        return W_OI

    def _tracked(self, followed: Followed) -> tuple[Tensor, Tracked]:
        """The matrix, and its groups of entries: the same in every part."""
        W_OI = self.matrix(followed.site)
        generator = self._generator(Part(NAME, f"recovery-{followed.name}"))
        squares_I = mean_square(self.inputs, followed.site)
        return W_OI, track(W_OI, followed.super_weights, squares_I, self.settings.entries, generator)

    def _experts(self, site: Site) -> int:
        return 1 if site.expert is None else self.opened.arch.experts

    def _recovery(self, followed: Followed) -> Tables:
        W_OI, tracked = self._tracked(followed)
        W_OI = W_OI.to(self.opened.device)
        rows, entries = svd_rows(W_OI, self._experts(followed.site), tracked, self.settings.ranks)
        outputs, inputs = W_OI.shape
        about = {**labels(followed.site), "role": followed.role}
        shape = {"outputs": outputs, "inputs": inputs}
        return {
            "recovery": [self._about(followed, row) for row in rows],
            "entries": [about | shape | row for row in entries],
        }

    @cached_property
    def _source(self) -> Source:
        """Source of the factors of all layers that are followed: the same on every run."""
        given = self.settings
        return Source(
            self.opened,
            self.request.model,
            sorted({f.site.layer for f in self.followed if f.site.expert is not None}),
            "down",
            calibration_of(self.recipes, CalibrationSettings(given.text, given.tokens, self.windows_WT.shape[1])),
            self.request.memory,
            self.request.seed,
            self.request.revision,
            self.request.command_line,
        )

    def _methods(self, followed: Followed) -> Tables:
        """Specs that fix their storage are points of one curve, and so are the ratios of a spec that does not."""
        W_OI, tracked = self._tracked(followed)
        left_out: list[tuple[Recipe, str]] = []
        if followed.site.expert is None:
            made, left_out = of_matrix(W_OI, self.recipes, self.opened.device)
        else:
            made = [of_stack(factors, followed.site) for factors in self._made]
        curves: dict[str, list[Estimate]] = {}
        for estimate in made:
            curve = estimate.method.partition(":")[0] if estimate.ratio is None else estimate.method
            curves.setdefault(curve, []).append(estimate)
        rows = [row for estimates in curves.values() for row in method_rows(W_OI, tracked, estimates)]
        rows += [{"method": recipe.method, "ratio": recipe.ratio, "status": why} for recipe, why in left_out]
        return {"recovery": [self._about(followed, row) for row in rows]}

    def _about(self, followed: Followed, row: Row) -> Row:
        """A row of a method on a matrix, with the id of the model whose stack or layer is so compressed."""
        site, seen = followed.site, self._source.seen if row.get("calibration") else ""
        rank = "" if row["method"] in {recipe.method for recipe in self.recipes} else f"rank {row.get('rank')}"
        variant = Variant(row["method"], row.get("ratio"), (site.layer,), site.projection, seen, source=rank)
        return {**labels(site), "role": followed.role, **row, "variant": variant.id}

    def _ablation(self, part: Part, on_window: Callable[[int], None]) -> Tables:
        removals = list(self._removals(self._generator(part)))
        rows = ablation_rows(self._projections, removals, self.evaluation_WT, self.settings.eval_text, on_window)
        return {"ablation": rows}

    def _removals(self, generator: torch.Generator) -> Iterator[Removal]:
        """Super weights (or every layer's strongest spike), then other groups of the first matrix and of the control,
        beside random ones."""
        draws, found = self.settings.draws, [row for row in self.found if row["status"] != "none_found"]
        yield from self._beside(Removal("superweight", [_entry(row) for row in found]), draws, generator)
        if not found:
            spikes = [_entry(row) for row in self.folder.rows("spikes") if row["same_token"]]
            yield from self._beside(Removal("strongest_spike", spikes), draws, generator)
        first = [followed for followed in self.followed if followed.role != "control"][:1]
        for followed in first + [followed for followed in self.followed if followed.role == "control"]:
            places = self._tracked(followed)[1].places
            for group in ("top_magnitude", "activation_weighted", "random_inlier"):
                entries = [Entry(followed.site, row, column) for row, column in places[group].tolist()]
                last = group == "random_inlier"  # the same random draws stand beside all three
                yield from self._beside(Removal(group, entries, None, **labels(followed.site)), draws * last, generator)

    def _beside(self, removal: Removal, draws: int, generator: torch.Generator) -> Iterator[Removal]:
        return beside_random(removal, self._projections, draws, generator)

    @property
    def passes(self) -> int:
        """Windows that the ablation runs, at most."""
        draws = self.settings.draws
        return len(self.evaluation_WT) * (1 + 2 * (1 + draws) + 2 * (3 + draws))

    def _folder(self, parts: Sequence[Part], out: Path | None) -> RunFolder[Part]:
        config: Row = {**asdict(self.settings), "window": self.windows_WT.shape[1], "layers": parse.spans(self.layers)}
        texts = digest([self.windows_WT.tolist(), self.evaluation_WT.tolist(), self.prompt_T.tolist()])
        known = {name: value for name, value in config.items() if name != "memory"}
        identity = {"settings": digest([known, texts, self.request.seed]), "probe_version": VERSION}
        found = {"found": digest(self.found)} if len(parts) > 1 else {}
        if versions := methods.versions(recipe.method for recipe in self.recipes):
            found["methods"] = digest(versions)  # the search for super weights uses none
        return self.opened.run_folder(
            NAME,
            {part: identity | (found if part.name != "discovery" else {}) for part in parts},
            config,
            out=out,
            command_line=self.request.command_line,
            tables=TABLES,
            given=self.request.out is not None and self.request.out_given,
            seed=self.request.seed,
        )


def _bytes(W_OI: Tensor) -> memoryview:
    return memoryview(W_OI.flatten().view(torch.uint8).numpy())  # type: ignore[arg-type]


def _depth(opened: OpenModel) -> int:
    """Decoder layers, multi-token-prediction layers left out."""
    if not opened.dense:
        return opened.arch.depth
    depth = language_config(opened.checkpoint.config).get("num_hidden_layers")
    if not isinstance(depth, int) or depth < 1:
        raise InputError(f"config.json: num_hidden_layers is {depth!r}, a positive whole number is needed")
    return depth


def _about(followed: Followed) -> tuple[tuple[str, Any], ...]:
    return tuple({**labels(followed.site), "role": followed.role}.items())


def _strength(row: Row) -> float:
    return min(abs(float(row["input_activation"])), abs(float(row["output_activation"])))


def _entry(row: Row) -> Entry:
    return Entry(site_of_row(row), int(row["row"]), int(row["column"]))
