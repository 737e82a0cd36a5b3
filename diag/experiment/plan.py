"""An experiment checked: its parts, each opened once on headers and texts alone, and the run folder that holds them.

OUT/parts/COMMAND[-N]   complete run folders of the commands
OUT/experiment.toml     the whole experiment; `compare --config` of it is the same command
OUT/run.json            as of any run; its jobs are the parts
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from diag.compression import calibrating
from diag.compression.calibrating import Calibration
from diag.compression.compress_run import own_inputs
from diag.compression.execution import print_calibration_plan
from diag.compression.rerun import Afresh
from diag.declare import parse
from diag.declare.model_settings import Calibrated, Compressed
from diag.declare.probe import Probe, StackSettings, Within, Work, probes
from diag.declare.setting import Settings, declared
from diag.declare.target import Target
from diag.experiment import NAME, VERSION
from diag.experiment.experiment import Experiment
from diag.inputs.texts import check_texts
from diag.models.open_model import OpenModel
from diag.runs.folder import Part, RunFolder, digest
from diag.runs.manifest import FILE
from tdmoe import methods
from tdmoe.problems import InputError

CALIBRATION = "calibration"  # the part that is not a command's own folder


@dataclass(frozen=True)
class Request:
    """One command, as an experiment."""

    experiment: Experiment
    out: Path | None = None
    fresh: bool = False
    quiet: bool = False
    command_line: str = ""


@dataclass(frozen=True)
class Step:
    """A probe with its settings. `name` is that of its folder."""

    name: str
    probe: Probe
    settings: Settings

    @property
    def reads_statistics(self) -> bool:
        """Tell whether it reads those of the calibration itself, so that they have to be there when it runs."""
        return isinstance(self.settings, StackSettings) and "statistics" in declared(type(self.settings))

    @property
    def part(self) -> Part:
        return Part(NAME, self.name)


class Comparison(OpenModel):
    """A checked plan. Use as a context manager."""

    def __init__(self, request: Request) -> None:
        """InputError where anything of the experiment does not fit; nothing is run."""
        given = request.experiment
        self.request, self.experiment = request, given
        self.steps = list(_steps(given))
        if not self.steps:
            raise InputError("compare", None, "nothing runs", f"give a preset, or a table of {', '.join(probes())}")
        _check_alone(given)
        for name, settings in ((CALIBRATION, given.calibration), *((step.name, step.settings) for step in self.steps)):
            try:
                _check_alone(settings)
            except InputError as error:
                error.within(name)
                raise
        super().__init__(given.model or "", given.device, given.revision)
        try:
            self.layers = self._compressed()
            self.collected = self._collected()
            self.folder = self._folder()
            self.afresh = Afresh(request.fresh)
            self._calibration_notes: list[str] = []
            if self.calibrated:
                with self.calibration() as calibration:
                    self._calibration_notes = [f"{CALIBRATION}: {note}" for note in calibration.notes()]
        except BaseException:
            self.checkpoint.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.folder.close()
        super().__exit__()

    @property
    def calibrated(self) -> bool:
        """Tell whether anything needs the shared calibration."""
        return any(map(self._calibrates, self.steps))

    def _calibrates(self, step: Step) -> bool:
        """Tell whether the part, or one of its methods, takes part in the shared calibration."""
        if isinstance(step.settings, Compressed):
            named = step.settings.methods
            texts = self.experiment.methods if named is None else named
            return any(methods.needs(text).statistics for text in texts)
        return isinstance(step.settings, Calibrated) or step.reads_statistics

    def notes(self) -> list[str]:
        """Oddities of the model, and what is left out of what was asked."""
        found = [note for step in self.steps for note in step.settings.left_out(self._said)]
        return super().notes() + list(dict.fromkeys(found))

    def notes_of(self, step: Step) -> list[str]:
        """Notes that a part is told: what is left out, and what is odd about the calibration that it shares."""
        return [*step.settings.left_out(self._said), *(self._calibration_notes if self._calibrates(step) else [])]

    def take_up(self) -> list[str]:
        """Open the run folder, whose jobs are all to be done: the parts' own folders tell what is done. Notes on it."""
        self.folder.open(fresh=self.request.fresh, notes=[*self.notes(), *self._calibration_notes])
        self.folder.forget(self.folder.jobs)
        self.folder.begin()
        return [*self.folder.replaces, *self.notes()]

    def without_run(self) -> list[dict[str, Any]]:
        """Parts that failed before they had a run folder, as jobs."""
        path = self.folder.path / "parts"
        return [
            {"key": key, "state": "failed", "message": message}
            for key, message in self.folder.failures()
            if not (path / key.removeprefix(f"{NAME}-") / FILE).is_file()
        ]

    def calibration(self) -> Calibration:
        """The calibration that all parts share."""
        given = self.experiment
        request = calibrating.Request(
            given.model or "",
            self.collected,
            self.layers,
            self.device,
            revision=given.revision,
            command_line=self.request.command_line,
        )
        try:
            return Calibration(request)
        except InputError as error:
            error.within(CALIBRATION)
            raise

    @property
    def _said(self) -> dict[str, Any]:
        """Settings of the experiment for all its parts."""
        given = self.experiment
        names = ("methods", "ratios", "schedule", "task_data")
        return {name: getattr(given, name) for name in names}

    @contextmanager
    def opened(self, step: Step, statistics: Path | None = None) -> Iterator[Work]:
        """A part, checked; InputError says which. Before there are statistics, what can be told without them."""
        given, promised = self.experiment, statistics is None
        layers = {"compressed": self.layers, "asked": given.layers, "all": None}[step.settings.LAYERS]
        target = Target(
            model=given.model or "",
            layers=layers,
            projections=given.projections,
            device=given.device,
            memory=given.memory,
            out=self.folder.path / "parts" / step.name,
            out_given=False,
            seed=given.seed,
            revision=given.revision,
            engine=given.engine,
            fresh=self.request.fresh,
            command_line=self.request.command_line,
        )
        within = Within(self.collected, self.afresh, self.notes_of(step))
        try:
            settings = step.settings.within(self._said | {"statistics": statistics, "promised": promised})
            part = step.probe.open(target, settings, within)
        except InputError as error:
            error.within(step.name)
            raise
        with part:
            yield part

    def check(self) -> None:
        """Open every part once; InputError where one does not fit."""
        for step in self.steps:
            with self.opened(step):
                pass

    def describe(self) -> None:
        """Print the plan for --dry-run, on stdout."""
        print(
            f"{self.name}: {NAME}, run folder {self.folder.path}, parts: {', '.join(step.name for step in self.steps)}"
        )
        if self.calibrated:
            with self.calibration() as calibration:
                print_calibration_plan(calibration)
        for step in self.steps:
            with self.opened(step) as part:
                part.describe()

    def _compressed(self) -> str:
        """The layers that methods compress, as text: all, those of --layers, or the largest set of a schedule."""
        given = self.experiment
        if given.schedule and given.layers:
            raise InputError("schedule", given.schedule, "chooses the layers", "give it or layers, not both")
        if given.schedule:
            return parse.schedule(given.schedule, self.arch.layers)
        return parse.spans(parse.layers(given.layers, self.arch.layers))

    def _collected(self) -> calibrating.Settings:
        """Settings of a calibration that serves the neediest method of all parts."""
        given = self.experiment
        wanted = [*given.methods, *(spec for step in self.steps for spec in step.settings.specs(given.projections))]
        found = calibrating.Settings(given.calibration.text, given.calibration.tokens)
        for text in dict.fromkeys(wanted):
            needs = methods.needs(text)
            own = own_inputs(text, needs, given.projections, found.per_expert)
            found = replace(found, per_expert=own, outputs=found.outputs or needs.outputs)
        return found

    def _folder(self) -> RunFolder[Part]:
        given, request = self.experiment, self.request
        apart = {"parts", "engine"}  # the same numbers, wherever they are computed
        shared = {each.name: getattr(given, each.name) for each in fields(given) if each.name not in apart}
        about = digest([VERSION, {name: _plain(value) for name, value in shared.items()}])
        asked = {Part(NAME, CALIBRATION): asdict(self.collected)} if self.calibrated else {}
        asked |= {step.part: _plain(step.settings) for step in self.steps}
        identities = {part: {"settings": digest(settings), "experiment": about} for part, settings in asked.items()}
        return self.run_folder(
            NAME,
            identities,
            _flat(given, self.steps),
            out=request.out,
            command_line=request.command_line,
            tables={},
            seed=given.seed,
        )


def _steps(experiment: Experiment) -> Iterator[Step]:
    for name, probe in probes().items():
        for number, settings in enumerate(experiment.parts.get(name, ()), 1):
            yield Step(name if number == 1 else f"{name}-{number}", probe, settings)


def _check_alone(settings: Any) -> None:
    """InputError where specs, ratios, texts or tasks of an experiment or a part are wrong whatever the model is."""
    said = {name: value if isinstance(value, tuple) else (value,) for name, value in vars(settings).items()}
    for spec in said.get("methods", ()):
        if spec is not None:
            methods.parse(spec)
    if (ratio := said.get("ratio", (None,))[0]) is not None:
        parse.ratio("ratio", ratio)
    check_texts(*((name, text) for name in ("text", "texts", "eval_text") for text in said.get(name, ())))
    if isinstance(settings, Settings):
        settings.check()


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value  # type: ignore[arg-type]


def _flat(experiment: Experiment, steps: list[Step]) -> dict[str, Any]:
    """All of it as settings of a run: `quality-2.windows` for those of the part of that name."""
    found: dict[str, Any] = {}
    for each in fields(experiment):
        value = getattr(experiment, each.name)
        if each.name == "parts":
            continue
        inner = _plain(value)
        found |= {f"{each.name}.{k}": v for k, v in inner.items()} if isinstance(inner, dict) else {each.name: value}
    for step in steps:
        found |= {f"{step.name}.{name}": value for name, value in _plain(step.settings).items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
