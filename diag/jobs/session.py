"""A request made into a finished run folder: resolve, check jobs on headers alone, run, write the table.

Nothing is read or written before the whole plan has been checked, so bad input costs no time and leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from diag.declare import parse
from diag.declare.defaults import ALL_PROJECTIONS
from diag.declare.probe import StackProbe, StackSettings, stack_probe
from diag.declare.setting import identified
from diag.jobs.engine import engine
from diag.jobs.work import Done, Failed, Task
from diag.models.model import Model, resolve
from diag.runs.folder import Job, RunFolder, digest
from diag.runs.manifest import SCHEMA, make_manifest
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.problems import InputError, MissingShards
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.blocks import BlockPlan
from tdmoe.stacks.families import PROJECTIONS
from tdmoe.stacks.joint import Stack, open_named
from tdmoe.stacks.locate import check_layers


@dataclass(frozen=True)
class Request:
    """One command as typed; `settings` belongs to the probe."""

    command: str
    model: str
    settings: StackSettings
    layers: str | None = None
    projections: str = ALL_PROJECTIONS
    device: str = "auto"
    out: Path | None = None
    out_given: bool = True  # by --out, not by the command that this one is a part of
    seed: int = 0
    engine: str = "inline"
    fresh: bool = False
    revision: str | None = None
    remote: bool = False
    command_line: str = ""


class Session:
    """A checked plan: one WeightStack per job. Use as a context manager; it holds the checkpoint open."""

    def __init__(self, request: Request) -> None:
        """Check everything that headers can tell; InputError before any weight is read."""
        self.request = request
        self.probe: StackProbe = stack_probe(request.command)
        self.model: Model = resolve(request.model, request.revision, remote=request.remote)
        self.engine = engine(request.engine)
        self.device = self.engine.device(request.device)
        try:
            self.checkpoint = Checkpoint(self.model.files())
        except OSError as error:
            raise _unreadable(request.model, error) from error
        try:
            self.stacks = self._open_stacks()
            self.plans: dict[Job, BlockPlan] = {
                job: self.probe.plan(stack, request.settings) for job, stack in self.stacks.items()
            }
            self.folder = self._folder()
            self.engine.check([self._task(job) for job in self.stacks])
        except BaseException as error:
            self.checkpoint.close()
            if isinstance(error, OSError):
                raise _unreadable(request.model, error) from error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.close()
        self.checkpoint.close()

    def notes(self) -> list[str]:
        """Oddities of the checkpoint that do not stop a run."""
        files = self.checkpoint.files
        notes = [f"{files.unreachable}: the cached copy of {files.name} is used"] if files.unreachable else []
        notes += self.checkpoint.notes
        declared, stored = self.arch.dtype, {s.encoding.name for s in self.stacks.values()}
        if declared is None or stored == {declared}:
            return notes
        return [*notes, f"config.json declares {declared}, the experts are stored as {', '.join(sorted(stored))}"]

    @property
    def pending_bytes(self) -> int:
        """Bytes that the jobs still to do will take from the disk."""
        return sum(self._task(job).read_bytes for job in self.folder.pending())

    def missing(self) -> dict[str, int]:
        """{shard: bytes} that pending jobs need and that have to be fetched first."""
        return self.checkpoint.files.missing(self._shards())

    def fetch(self, on_bytes: Callable[[int], None]) -> None:
        """Fetch `missing`."""
        self.checkpoint.files.fetch(self._shards(), on_bytes)

    def _shards(self) -> list[str]:
        """Shards of pending jobs, in the order in which they are needed."""
        pending = [self.stacks[job] for job in self.folder.pending()]
        return list(dict.fromkeys(entry.file for stack in pending for entry in stack.all_entries))

    def execute(
        self,
        on_read: Callable[[int], None] = lambda count: None,
        on_done: Callable[[Job], None] = lambda job: None,
        on_note: Callable[[str], None] = lambda note: None,
    ) -> None:
        """Run what is pending, saving each result as it comes, and write the table.

        OSError where a result cannot be written (disk full).
        """
        self.folder.begin()
        tasks = [self._task(job) for job in self.folder.pending()]
        for result in self.engine.run(tasks, self.checkpoint, on_read, on_note):
            match result:
                case Done(job, tables, arrays, seconds):
                    self.folder.finish(job, tables, arrays, seconds)
                case Failed(job, message, trace):
                    self.folder.fail(job, message, trace)
            on_done(result.job)
        for table, columns in self.probe.TABLES.items():
            self.folder.write_table(table, columns)

    def _task(self, job: Job) -> Task:
        plan, stack = self.plans[job], self.stacks[job]
        return Task(
            job,
            self.model.pinned(self.checkpoint.files),
            self.request.settings,
            self.device,
            self.request.seed,
            weights=self.folder.identities[job]["weights"],
            versions=self.folder.manifest["versions"],
            peak_bytes=plan.peak_bytes,
            read_bytes=plan.reads * stack.bytes_read,
        )

    def _open_stacks(self) -> dict[Job, Stack]:
        self.arch = arch = architecture(self.checkpoint.config)
        check_layers(self.checkpoint, arch)
        layers = parse.layers(self.request.layers, arch.layers)
        projections = parse.choices("projections", self.request.projections, PROJECTIONS)
        names = self.request.settings.stacks(projections)
        jobs = [Job(self.probe.NAME, layer, name) for layer in layers for name in names]
        stacks: dict[Job, Stack] = {}
        missing: list[str] = []
        for job in jobs:
            try:
                stacks[job] = open_named(self.checkpoint, arch, job.layer, job.projection)
            except MissingShards as error:
                missing += error.shards
        if missing:
            files = self.checkpoint.files
            where = f"the cache of {files.name} ({files.unreachable})" if files.unreachable else files.name
            raise MissingShards(sorted(set(missing)), where)
        return stacks

    def _folder(self) -> RunFolder[Job]:
        request = self.request
        settings = {name: _plain(value) for name, value in asdict(request.settings).items()}
        jobs = list(self.stacks)
        config = {
            **settings,
            "layers": parse.spans(sorted({job.layer for job in jobs})),
            "projections": ",".join(dict.fromkeys(job.projection for job in jobs)),
        }
        left_out = getattr(self.probe, "UNIDENTIFIED", ())
        settings = {n: settings[n] for n in identified(request.settings) if n not in left_out}
        identity = {
            "model": self.model.name,
            "device": self.device.partition(":")[0],
            "settings": digest({**settings, "seed": request.seed}),
            "probe_version": self.probe.VERSION,
        }
        identities = {
            job: {
                **identity,
                **request.settings.of(job.key),
                "weights": self.checkpoint.weights_fingerprint(stack.all_entries),
            }
            for job, stack in self.stacks.items()
        }
        manifest = make_manifest(
            command=request.command,
            command_line=request.command_line,
            model=self.model.name,
            commit=self.checkpoint.files.commit,
            fingerprint=self.checkpoint.structure_fingerprint(),
            weights=digest([identities[job]["weights"] for job in jobs]),
            config=config,
            seed=request.seed,
            device=self.device,
            engine=request.engine,
            threads=self.engine.threads(self.device),
        )
        short = digest([SCHEMA, identity, config["layers"], config["projections"], manifest["fingerprint"]])[:8]
        out = request.out or Path("runs") / f"{self.model.name}-{request.command}-{short}"
        return RunFolder(
            out,
            manifest,
            identities,
            given=request.out is not None and request.out_given,
            columns=self.probe.TABLES,
            changed=self.checkpoint.changed,
        )


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _unreadable(model: str, error: OSError) -> InputError:
    reason = f"{error.filename or 'a file'} cannot be read ({error.strerror or error})"
    return InputError("model", model, reason, "check the folder and its rights")
