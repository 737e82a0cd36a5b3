"""What each command does of an experiment: its own plan, opened with the experiment's settings.

All of them share one calibration and one set of factors: they ask `diag.compression.factors` for the same recipes,
layers, projections and calibration, whatever method needed more of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self

from diag.cli import console, executing
from diag.compare.experiment import (
    MIDDLE,
    Attribution,
    Drift,
    Experiment,
    Experts,
    Injection,
    Operator,
    Quality,
    Spectra,
    SuperWeights,
)
from diag.compression import calibrating
from diag.compression.calibrated import saved_moments
from diag.compression.factors import Recipe, recipes
from diag.compression.rerun import Afresh
from diag.declare import parse
from diag.jobs.session import Request, Session
from diag.probes import attribution as attribution_probe
from diag.probes import drift as drift_probe
from diag.probes import experts as experts_probe
from diag.probes import injection as injection_probe
from diag.probes import operator as operator_probe
from diag.probes import quality as quality_probe
from diag.probes import spectra as spectra_probe
from diag.probes import superweights as superweights_probe
from diag.probes.attribution.plan import Plan as AttributionPlan
from diag.probes.attribution.plan import Request as AttributionRequest
from diag.probes.drift.run import Drift as DriftPlan
from diag.probes.drift.run import Request as DriftRequest
from diag.probes.injection.injecting import Injection as InjectionPlan
from diag.probes.injection.injecting import Request as InjectionRequest
from diag.probes.operator.cases import canonical
from diag.probes.quality.plan import Plan as QualityPlan
from diag.probes.quality.plan import Request as QualityRequest
from diag.probes.superweights.run import Request as SuperWeightsRequest
from diag.probes.superweights.run import SuperWeights as SuperWeightsPlan
from diag.runs.folder import RunFolder
from tdmoe import methods
from tdmoe.problems import InputError


@dataclass(frozen=True)
class Context:
    """What all parts share. `layers` are those that are compressed; `statistics` None until they are collected."""

    experiment: Experiment
    layers: str
    collected: calibrating.Settings
    statistics: Path | None
    command_line: str
    fresh: bool = False
    quiet: bool = False
    afresh: Afresh = field(default_factory=lambda: Afresh(False))  # of all parts together
    notes: Sequence[str] = ()  # of what the part shares with others, or goes without

    @property
    def memory(self) -> int:
        return parse.size("memory", self.experiment.memory)

    def recipes(self, settings: Any) -> list[Recipe]:
        """Those of a command, or else the experiment's."""
        named, ratios = settings.methods or self.experiment.methods, settings.ratios or self.experiment.ratios
        return recipes(",".join(named), _numbers(ratios))

    def where(self, out: Path) -> dict[str, Any]:
        """What requests of the whole model have in common."""
        given = self.experiment
        found: dict[str, Any] = {"device": given.device, "out": out, "seed": given.seed, "fresh": self.fresh}
        return found | {"out_given": False, "revision": given.revision or None, "command_line": self.command_line}


class Opened(Protocol):
    """A checked part. Use as a context manager."""

    @property
    def folder(self) -> RunFolder[Any]:
        """Where its results are."""

    def describe(self) -> None:
        """Say on stdout what is to be done."""

    def execute(self) -> None:
        """Do what is pending."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class _Part:
    """Of a plan that is a context manager and has a folder."""

    def __init__(self, plan: Any, context: Context) -> None:
        self.plan, self.context = plan, context

    @property
    def folder(self) -> RunFolder[Any]:
        found: RunFolder[Any] = self.plan.folder
        return found

    def describe(self) -> None:
        console.print_lines(self.plan.described())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.plan.__exit__()


class StackPart(_Part):
    """A probe of stacks, by a Session."""

    def describe(self) -> None:
        console.print_plan(self.plan)

    def execute(self) -> None:
        told = self.folder.open(fresh=self.context.fresh, notes=[*self.context.notes, *self.plan.notes()])
        executing.execute(self.plan, told, quiet=self.context.quiet)


class ModelPart(_Part):
    """A probe of the whole model, by what carries it out under bars."""

    def __init__(self, plan: Any, context: Context, carry_out: Callable[..., None]) -> None:
        super().__init__(plan, context)
        self._carry_out = carry_out

    def execute(self) -> None:
        context = self.context
        self._carry_out(self.plan, quiet=context.quiet, afresh=context.afresh, notes=context.notes)


class InjectionPart(_Part):
    """It makes no factors that others could share."""

    def describe(self) -> None:
        console.print_injection_plan(self.plan)

    def execute(self) -> None:
        executing.execute_injection(self.plan, quiet=self.context.quiet, notes=self.context.notes)


def _session(name: str, context: Context, settings: Any, out: Path, layers: str) -> StackPart:
    given = context.experiment
    where = {**context.where(out), "layers": layers or None, "projections": given.projections, "engine": given.engine}
    return StackPart(Session(Request(name, given.model, settings, **where)), context)


def _spectra(settings: Spectra, context: Context, out: Path) -> Opened:
    asked = spectra_probe.Settings(
        parse.fraction_range("fit_range", settings.fit_range), settings.jackknife, context.memory
    )
    return _session("spectra", context, asked, out, context.experiment.layers)


def _operator(settings: Operator, context: Context, out: Path) -> Opened:
    """Inherited methods that join stacks or share a budget among them are left out: here every stack is by itself."""
    named = [canonical(text) for text in settings.methods] or list(_by_themselves(context.experiment.methods))
    ratios = settings.ratios or context.experiment.ratios
    asked = operator_probe.Settings(
        tuple(parse.ratios("ranks", _numbers(settings.ranks))),
        tuple(parse.ratios("ratios", _numbers(ratios))),
        tuple(dict.fromkeys(named)),
        per_expert=settings.per_expert,
        memory=context.memory,
    )
    if context.statistics is not None:
        where = str(context.statistics)
        return _session(
            "operator", context, replace(asked, statistics=where, moments=_moments(context)), out, context.layers
        )
    free = tuple(text for text in asked.methods if not methods.needs(text).statistics)
    part = _session("operator", context, replace(asked, methods=free), out, context.layers)
    try:
        for text in asked.methods:
            method, options = methods.parse(text)
            for stack in part.plan.stacks.values():
                for ratio in (0.5,) if method.fixes_storage(options) else asked.ratios:
                    method.check(stack.shape, options, ratio)
    except BaseException:
        part.__exit__()
        raise
    return part


def _experts(settings: Experts, context: Context, out: Path) -> Opened:
    ratios = tuple(parse.ratios("ratios", _numbers(settings.ratios or context.experiment.ratios)))
    asked = experts_probe.Settings(
        ratios, None, None, "none", settings.jackknife, settings.directions, settings.draws, context.memory
    )
    if context.statistics is not None:
        where, whitening = str(context.statistics), settings.whitening
        asked = replace(asked, statistics=where, moments=_moments(context), whitening=whitening)  # type: ignore[arg-type]
    return _session("experts", context, asked, out, context.layers)


def _superweights(settings: SuperWeights, context: Context, out: Path) -> Opened:
    given = context.experiment
    named, ratios = settings.methods or given.methods, settings.ratios or given.ratios
    asked = superweights_probe.Settings(
        prompt=settings.prompt,
        text=settings.text,
        tokens=settings.tokens,
        window=settings.window or None,
        threshold=settings.threshold,
        most=settings.most,
        entries=settings.entries,
        ranks=settings.ranks,
        control_layer=None if settings.control_layer == MIDDLE else settings.control_layer,
        methods=",".join(named),
        ratios=_numbers(ratios),
        evaluation=settings.eval_text,
        windows=settings.eval_windows,
        draws=settings.draws,
        memory=context.memory,
    )
    where = context.where(out)
    plan = SuperWeightsPlan(SuperWeightsRequest(given.model, asked, **where))
    return ModelPart(plan, context, executing.execute_superweights)


def _quality(settings: Quality, context: Context, out: Path) -> Opened:
    given = context.experiment
    data = None if given.task_data in ("", "hub") else Path(given.task_data)
    request = QualityRequest(
        given.model,
        texts=settings.texts,
        windows=settings.windows,
        window=settings.window or None,
        stride=settings.stride or None,
        join=settings.join,
        bos=settings.bos,
        tasks=settings.tasks,
        task_data=data,
        limit=settings.limit or None,
        recipes=context.recipes(settings),
        layers=given.layers or None,
        schedule=given.schedule or None,
        projections=given.projections,
        calibration=context.collected,
        dtype=settings.dtype,
        memory=context.memory,
        **context.where(out),
    )
    return ModelPart(QualityPlan(request), context, executing.execute_quality)


def _drift(settings: Drift, context: Context, out: Path) -> Opened:
    given = context.experiment
    request = DriftRequest(
        given.model,
        text=settings.text,
        tokens=settings.tokens,
        window=settings.window or None,
        recipes=context.recipes(settings),
        scopes=parse.choices("scope", settings.scope, drift_probe.SCOPES),
        layers=given.layers or None,
        schedule=given.schedule or None,
        projections=given.projections,
        calibration=context.collected,
        dtype=settings.dtype,
        memory=context.memory,
        **context.where(out),
    )
    return ModelPart(DriftPlan(request), context, executing.execute_drift)


def _attribution(settings: Attribution, context: Context, out: Path) -> Opened:
    given = context.experiment
    request = AttributionRequest(
        given.model,
        ratio=settings.ratio or max(given.ratios),
        projections=given.projections,
        ladder=settings.ladder,
        shapley=settings.shapley or None,
        mobe_steps=settings.mobe_steps,
        fit_steps=settings.fit_steps,
        text=settings.text,
        windows=settings.windows,
        window=settings.window or None,
        layers=context.layers,
        calibration=context.collected,
        dtype=settings.dtype,
        memory=context.memory,
        **context.where(out),
    )
    return ModelPart(AttributionPlan(request), context, executing.execute_attribution)


def _injection(settings: Injection, context: Context, out: Path) -> Opened:
    given = context.experiment
    request = InjectionRequest(
        given.model,
        context.collected,
        layers=context.layers,
        projections=given.projections,
        apart=settings.apart,
        scopes=settings.scopes,
        alone=settings.alone or None,
        families=settings.families,
        methods=",".join(settings.methods or _by_themselves(given.methods)),
        ratio=f"{settings.ratio:g}",
        designs=settings.designs,
        sizes=_numbers(settings.sizes),
        seeds=settings.seeds,
        text=settings.text,
        tokens=settings.tokens,
        window=settings.window,
        memory=context.memory,
        **context.where(out),
    )
    return InjectionPart(InjectionPlan(request), context)


@dataclass(frozen=True)
class Kind:
    """A command as part of an experiment. `calibrated`: it, or its methods, take part in the shared calibration.

    `statistics`: it reads those itself, so that it can be opened with them only when they are there. `by_methods`: it
    needs a calibration only where one of its methods does.
    """

    open: Callable[[Any, Context, Path], Opened]
    tables: Sequence[str]
    calibrated: bool = True
    statistics: bool = False
    by_methods: bool = False


KINDS: Mapping[str, Kind] = {
    "spectra": Kind(_spectra, tuple(spectra_probe.TABLES), calibrated=False),
    "operator": Kind(_operator, tuple(operator_probe.TABLES), statistics=True),
    "superweights": Kind(_superweights, tuple(superweights_probe.TABLES), calibrated=False),
    "experts": Kind(_experts, tuple(experts_probe.TABLES), statistics=True),
    "quality": Kind(_quality, tuple(quality_probe.TABLES), by_methods=True),
    "drift": Kind(_drift, tuple(drift_probe.TABLES), by_methods=True),
    "attribution": Kind(_attribution, tuple(attribution_probe.TABLES)),
    "injection": Kind(_injection, tuple(injection_probe.TABLES)),
}


def _by_themselves(specs: Sequence[str]) -> list[str]:
    """Those methods that can be measured stack by stack."""
    found = []
    for text in specs:
        methods.parse(text)
        try:
            found.append(canonical(text))
        except InputError:
            continue
    return found


def _moments(context: Context) -> str:
    assert context.statistics is not None
    return saved_moments(context.statistics)


def _numbers(values: Sequence[float]) -> str:
    return ",".join(f"{value:.9g}" for value in values)
