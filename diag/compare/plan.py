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

from diag.compare import NAME, VERSION
from diag.compare.experiment import Experiment, commands
from diag.compare.kinds import KINDS, Context, Kind, Opened
from diag.compression import calibrating
from diag.compression.calibrating import Calibration
from diag.compression.compress_run import own_inputs
from diag.compression.factors import split_specs
from diag.compression.rerun import Afresh
from diag.declare import parse
from diag.models.open_model import OpenModel
from diag.probes.attribution.switches import method as method_with
from diag.probes.attribution.switches import switches
from diag.probes.quality import zero_shot
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
    """A command with its settings. `name` is that of its folder."""

    name: str
    command: str
    settings: Any

    @property
    def kind(self) -> Kind:
        return KINDS[self.command]

    @property
    def part(self) -> Part:
        return Part(NAME, self.name)


class Comparison(OpenModel):
    """A checked plan. Use as a context manager."""

    def __init__(self, request: Request) -> None:
        """InputError where anything of the experiment does not fit; nothing is run."""
        given = request.experiment
        super().__init__(given.model, given.device, given.revision or None)
        self.request, self.experiment = request, given
        try:
            self.steps = list(_steps(given))
            if not self.steps:
                raise InputError(f"compare: no command runs; give a preset, or a table of {', '.join(commands())}")
            parse.ratios("ratios", ",".join(f"{ratio:.9g}" for ratio in given.ratios))
            self._check_tasks()
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
        """Whether anything needs the shared calibration."""
        return any(map(self._calibrates, self.steps))

    def _calibrates(self, step: Step) -> bool:
        if not step.kind.by_methods:
            return step.kind.calibrated
        return any(methods.needs(text).statistics for text in step.settings.methods or self.experiment.methods)

    def notes(self) -> list[str]:
        """What is odd about the model, and what is left out of what was asked."""
        return super().notes() + list(dict.fromkeys(note for step in self.steps for note in self._left_out(step)))

    def _left_out(self, step: Step) -> list[str]:
        asked = getattr(step.settings, "tasks", ())
        if not asked or self.experiment.task_data:
            return []
        return [
            f"{', '.join(asked)}: zero-shot tasks are not measured, they need data; give --task-data FOLDER, or "
            "--task-data hub where there is a network"
        ]

    def notes_of(self, step: Step) -> list[str]:
        """What a part is told: that, and what is odd about the calibration that it shares."""
        return [*self._left_out(step), *(self._calibration_notes if self._calibrates(step) else [])]

    def take_up(self) -> list[str]:
        """Its run folder, whose jobs are all to be done: the parts' own folders tell what is done. Notes on it."""
        self.folder.open(fresh=self.request.fresh, notes=[*self.notes(), *self._calibration_notes])
        self.folder.forget(self.folder.jobs)
        self.folder.begin()
        return [*self.folder.replaces, *self.notes()]

    def _check_tasks(self) -> None:
        """InputError where a task is unknown, whether there is data of tasks or not."""
        for step in self.steps:
            try:
                zero_shot.check_known(getattr(step.settings, "tasks", ()))
            except InputError as error:
                error.within(step.name)
                raise

    def without_run(self) -> list[dict[str, Any]]:
        """Parts that failed before they had a run folder, as jobs."""
        path = self.folder.path / "parts"
        return [
            {"key": key, "state": "failed", "message": message}
            for key, message in self.folder.failures()
            if not (path / key.removeprefix(f"{NAME}-") / FILE).is_file()
        ]

    def calibration(self) -> Calibration:
        """Of all parts."""
        given = self.experiment
        request = calibrating.Request(
            given.model,
            self.collected,
            self.layers,
            self.device,
            revision=given.revision or None,
            command_line=self.request.command_line,
        )
        try:
            return Calibration(request)
        except InputError as error:
            error.within(CALIBRATION)
            raise

    @contextmanager
    def opened(self, step: Step, statistics: Path | None = None) -> Iterator[Opened]:
        """A part, checked; InputError says which."""
        request = self.request
        context = Context(
            self.experiment,
            self.layers,
            self.collected,
            statistics,
            request.command_line,
            fresh=request.fresh,
            quiet=request.quiet,
            afresh=self.afresh,
            notes=self.notes_of(step),
        )
        try:
            part = step.kind.open(self._settled(step.settings), context, self.folder.path / "parts" / step.name)
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
        """For --dry-run, on stdout."""
        from diag.cli.console import print_calibration_plan

        print(
            f"{self.name}: {NAME}, run folder {self.folder.path}, parts: {', '.join(step.name for step in self.steps)}"
        )
        if self.calibrated:
            with self.calibration() as calibration:
                print_calibration_plan(calibration)
        for step in self.steps:
            with self.opened(step) as part:
                part.describe()

    def _settled(self, settings: Any) -> Any:
        """Without tasks where there is no data of them."""
        if getattr(settings, "tasks", ()) and not self.experiment.task_data:
            return replace(settings, tasks=())
        return settings

    def _compressed(self) -> str:
        """The layers that methods compress, as text: all, those of --layers, or the largest set of a schedule."""
        given = self.experiment
        if given.schedule and given.layers:
            raise InputError(f"schedule {given.schedule}: chooses the layers; give it or layers, not both")
        if given.schedule:
            return parse.schedule(given.schedule, self.arch.layers)
        return parse.spans(parse.layers(given.layers or None, self.arch.layers))

    def _collected(self) -> calibrating.Settings:
        """What the calibration has to hold so that it serves the neediest method of all parts."""
        given = self.experiment
        wanted = [*given.methods, *(spec for step in self.steps for spec in getattr(step.settings, "methods", ()))]
        if given.attribution:
            wanted.append(method_with(switches(given.projections.split(","), 1), 1))  # the neediest of its steps
        found = calibrating.Settings(given.calibration.text, given.calibration.tokens)
        for text in dict.fromkeys(wanted):
            needs = methods.needs(text)
            own = own_inputs(text, needs, given.projections, found.per_expert)
            found = replace(found, per_expert=own, outputs=found.outputs or needs.outputs)
        return found

    def _folder(self) -> RunFolder[Part]:
        given, request = self.experiment, self.request
        apart = {*commands(), "engine"}  # the same numbers, wherever they are computed
        shared = {each.name: getattr(given, each.name) for each in fields(given) if each.name not in apart}
        about = digest([VERSION, {name: _plain(value) for name, value in shared.items()}])
        asked = {Part(NAME, CALIBRATION): asdict(self.collected)} if self.calibrated else {}
        asked |= {step.part: asdict(step.settings) for step in self.steps}
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
    for command in commands():
        for number, settings in enumerate(getattr(experiment, command), 1):
            yield Step(command if number == 1 else f"{command}-{number}", command, settings)


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value  # type: ignore[arg-type]


def _flat(experiment: Experiment, steps: list[Step]) -> dict[str, Any]:
    """All of it as settings of a run: `quality-2.windows` for those of the part of that name."""
    found: dict[str, Any] = {}
    for each in fields(experiment):
        value = getattr(experiment, each.name)
        if each.name in commands():
            continue
        inner = _plain(value)
        found |= {f"{each.name}.{k}": v for k, v in inner.items()} if isinstance(inner, dict) else {each.name: value}
    for step in steps:
        found |= {f"{step.name}.{name}": value for name, value in asdict(step.settings).items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def methods_of(text: str) -> tuple[str, ...]:
    """--methods as canonical specs; InputError where one is none."""
    from tdmoe import spec

    found = [methods.parse(one) for one in split_specs(text)]
    return tuple(dict.fromkeys(spec.text(method.NAME, options) for method, options in found))
