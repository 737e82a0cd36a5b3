"""One `injection` command: everything that can be checked before the model is loaded, then its parts, then statistics.

The statistics of the inputs come from a calibration in a run folder of its own, made first, or from one that is given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from diag.compression import calibrated, calibrating
from diag.compression.calibrating import Calibration
from diag.compression.plans import ModelRequest
from diag.declare import parse
from diag.declare.defaults import ALL_PROJECTIONS, MEMORY_BYTES
from diag.declare.forms import specs
from diag.inputs.texts import check_texts, load_text
from diag.jobs.work import failing, measure
from diag.models.open_model import OpenModel
from diag.probes.injection import contrasts
from diag.probes.injection import measure as injection
from diag.probes.injection.cells import Run
from diag.probes.injection.measure import LoadedModel, Settings, Site, Source
from diag.runs.folder import Part, RunFolder, digest
from diag.runs.results import Arrays, Row, Tables
from tdmoe import methods, spec
from tdmoe.problems import InputError, WeightError
from tdmoe.runtime.injection import DESIGNS, FAMILIES
from tdmoe.stacks import joint
from tdmoe.stacks.families import PROJECTIONS

SCOPES = ("all", "one")
METHODS = "tdmoe,svd_llm,rtn"


@dataclass(frozen=True)
class Request(ModelRequest):
    """One command as typed; `calibration` is that to be made, None where `statistics` are given."""

    model: str
    calibration: calibrating.Settings | None
    statistics: Path | None = None
    projections: str = ALL_PROJECTIONS
    apart: bool = False
    scopes: str = ",".join(SCOPES)
    alone: str | None = None
    families: str = ",".join(FAMILIES)
    methods: str = METHODS
    ratio: str = "0.4"
    designs: str = "frobenius,operator"
    sizes: str = "0.1,0.3"
    seeds: int = 3
    text: str = "c4-eval"
    tokens: int = 2048
    window: int = 256
    memory: int = MEMORY_BYTES


class Injection(OpenModel):
    """A checked plan. Use as a context manager; `parts` says what is measured, in order."""

    def __init__(self, request: Request) -> None:
        """InputError before the model is loaded."""
        self.request = request
        self._check()
        super().__init__(request.model, request.device, request.revision)
        with self.closing():
            self.layers = parse.layers(request.layers, self.arch.layers)
            self.projections = parse.choices("projections", request.projections, PROJECTIONS)
            self.sites = self._sites()
            self.sources = [
                Source(family, number)
                for family in parse.choices("families", request.families, FAMILIES)
                for number in range(request.seeds)
            ]
            self.designs = parse.choices("designs", request.designs, DESIGNS)
            self.sizes = parse.positive("sizes", request.sizes)
            self._add_methods()
            self.calibration: Calibration | None = None
            self._calibrated()
            self.windows_WT = self.windows("text", request.text, request.tokens, request.window)
            self.settings = self._settings()
            self.parts = {
                injection.part(site, source, i if source.seed is None else source.seed): (site, source)
                for site in self.sites
                for i, source in enumerate(self.sources)
            }
            self.folder = self._folder()

    def notes(self) -> list[str]:
        """Differences from what was asked."""
        return self.notes_on(self.request.text, self.windows_WT, self.request.tokens)

    @property
    def held_bytes(self) -> int:
        """Bytes of the model in float32, the copy of what is injected into, and the residual."""
        width, hidden, experts = self.arch.width, self.arch.hidden, self.arch.experts
        largest = max(len(site.places) for site in self.sites)
        weights = sum(self.checkpoint.entry(name).nbytes for name in self.checkpoint.names())
        return 2 * weights + 2 * 4 * largest * experts * width * hidden

    def execute(self, on_done: Callable[[Part], None]) -> None:
        """Measure what is pending, then the statistics of every site that has changed, and write the tables."""
        pending = [job for job in self.folder.pending() if job in self.parts]
        changed = {self.parts[job][0] for job in pending}
        self.folder.forget([site.summary for site in self.sites if site in changed])
        self.folder.begin()
        if pending:
            with failing(self.folder, pending):
                self._check_statistics()
                loaded = self._loaded()
                for job in pending:
                    measure(self.folder, job, partial(self._measured, loaded, job))
                    on_done(job)
        for site in self.sites:
            if site.summary in self.folder.pending():
                measure(self.folder, site.summary, partial(self._contrasts, site))
        self.folder.write_table(injection.NAME, injection.TABLES[injection.NAME], lambda job: job in self.parts)
        self.folder.write_table(
            injection.CONTRASTS, injection.TABLES[injection.CONTRASTS], lambda job: job not in self.parts
        )

    def _measured(self, loaded: LoadedModel, job: Part) -> tuple[Tables, Arrays]:
        seed = int.from_bytes(hashlib.sha256(f"{self.settings.seed} {job.key}".encode()).digest()[:4])
        rows, change_RW = loaded.measure(*self.parts[job], self.settings, seed)
        return {injection.NAME: rows}, {"change": change_RW}

    def _contrasts(self, site: Site) -> tuple[Tables, Arrays]:
        """The statistics of a site, from its finished parts."""
        runs: list[Run] = []
        for job in [job for job, (where, _) in self.parts.items() if where == site]:
            rows, changes = self.folder.outcomes[job.key].tables.get(injection.NAME, []), self.folder.arrays(job)
            runs += [Run(row, change_W) for row, change_W in zip(rows, changes.get("change", ()), strict=True)]
        found = contrasts.summarise(runs, self.request.seed) if runs else []
        return {injection.CONTRASTS: [site.labels | row for row in found]}, {}

    def _check_statistics(self) -> None:
        """WeightError where the calibration that was made for this failed."""
        for key, message in [] if self.calibration is None else self.calibration.folder.failures():
            raise WeightError(f"{key}: {message}")

    def _loaded(self) -> LoadedModel:
        model = self.load("float32")
        return LoadedModel(model, self.windows_WT, self._statistics, self.checkpoint, self.arch, self.request.memory)

    def _check(self) -> None:
        """InputError where texts, statistics, ratio or methods are wrong whatever the model is."""
        request = self.request
        seen = "" if request.calibration is None else request.calibration.text
        check_texts(("text", request.text), *([("calibration_text", seen)] if seen else []))
        if request.statistics is not None:
            self._moments = calibrated.saved_moments(request.statistics)
        self.ratio, *more = parse.ratios("ratio", request.ratio)
        if more:
            raise InputError("ratio", request.ratio, "is several", "give one fraction to remove")
        for text in specs(request.methods) if request.methods else []:
            injection.check_method(text, self.ratio, [])

    def _sites(self) -> list[Site]:
        """All layers together, and single ones; all projections together, and with --apart each by itself."""
        request, scopes = self.request, parse.choices("scopes", self.request.scopes, SCOPES)
        if "one" not in scopes and request.alone is not None:
            raise InputError(
                "alone", request.alone, "says which layers scope one takes", "give --scopes one or all,one"
            )
        middle = str(self.layers[len(self.layers) // 2])
        alone = parse.layers(request.alone or middle, self.layers, option="alone") if "one" in scopes else []
        together = [tuple(self.layers)] if "all" in scopes else []
        chosen = [tuple(self.projections)]
        if request.apart and len(self.projections) > 1:
            chosen += [(projection,) for projection in self.projections]
        return [
            Site(scope, layers, projections)
            for scope, groups in (("all", together), ("one", [(layer,) for layer in alone]))
            for layers in groups
            for projections in chosen
        ]

    def _add_methods(self) -> None:
        """Specs in their canonical form; what they need of a calibration."""
        places = dict.fromkeys(place for site in self.sites for place in site.places)
        stacks = [joint.open_named(self.checkpoint, self.arch, *place) for place in places]
        self.needs = [methods.Needs(statistics=True)]
        for text in specs(self.request.methods):
            self.needs.append(injection.check_method(text, self.ratio, stacks))
            method, options = methods.parse(text)
            source = Source(spec.text(method.NAME, options), None)
            if source not in self.sources:
                self.sources.append(source)
        self._stacks: Sequence[joint.Stack] = stacks

    def _calibrated(self) -> None:
        """Statistics that are there and fit, or the plan to make them."""
        request = self.request
        if request.calibration is None:
            assert request.statistics is not None
            self._statistics = request.statistics
            for stack in self._stacks:
                for needs in self.needs:
                    calibrated.check_statistics(request.statistics, stack, needs)
            self._check_text(str(calibrated.config(request.statistics)["text"]))
            return
        self._check_text(request.calibration.text)
        outputs = any(needs.outputs for needs in self.needs)
        asked = calibrating.Request(
            request.model,
            replace(request.calibration, outputs=outputs),
            parse.spans(self.layers),
            request.device,
            revision=request.revision,
            command_line=request.command_line,
        )
        self.calibration = self._opened.enter_context(Calibration(asked))
        self._statistics = self.calibration.folder.path
        self._moments = calibrated.moments_digest(self.calibration.folder.identities.values())

    def _check_text(self, seen: str) -> None:
        """InputError where the loss would be of the text that the statistics are from."""
        text = self.request.text
        try:
            same = text == seen or load_text(text) == load_text(seen)
        except ValueError as error:
            raise InputError("text", text, str(error)) from error
        if same:
            raise InputError(
                "text",
                text,
                "is what the statistics are from",
                "give another one, so that the loss is of text that was not seen",
            )

    def _settings(self) -> Settings:
        request, (count, length) = self.request, self.windows_WT.shape
        return Settings(
            tuple(self.designs),
            tuple(self.sizes),
            self.ratio,
            digest(load_text(request.text)),
            count,
            length,
            self._moments,
            request.seed,
        )

    def _folder(self) -> RunFolder[Part]:
        identities: dict[Part, Row] = {
            job: injection.identity(site, source, self.settings) for job, (site, source) in self.parts.items()
        }
        for site in self.sites:
            members = [identities[job] for job, (where, _) in self.parts.items() if where == site]
            identities[site.summary] = {
                "probe_version": injection.CONTRASTS_VERSION,
                "settings": digest(members),
            }
        request = self.request
        config = {
            **{"layers": parse.spans(self.layers), "projections": ",".join(self.projections), "apart": request.apart},
            **{"scopes": request.scopes, "families": list(dict.fromkeys(source.family for source in self.sources))},
            **{"ratio": self.ratio, "designs": list(self.settings.designs), "sizes": list(self.settings.sizes)},
            **{"seeds": request.seeds, "text": request.text, "windows": self.settings.windows},
            **{"window": self.settings.window, "statistics": self._statistics.name, "moments": self._moments},
        }
        return self.run_folder(injection.NAME, identities, config, tables=injection.TABLES, **request.folder)
