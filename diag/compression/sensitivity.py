"""Effect of a stack's error on the loss, measured: each stack compressed alone inside the whole model.

    sensitivity = (L_stack - L) / err^2

L is the mean next-token cross-entropy in nats on the first windows of the calibration text. L_stack is the same with
one stack decomposed, with the ranks that its frontier has for the asked ratio; err^2 is that point's squared error over
||T||^2: the HOSVD's (that of HOOI, which is put in where two modes are cut, is at most as large). Gradients at the
outputs were tried instead (1/2 tr(D dW C dW^T)) and fell short of the measured change by a factor that differs from
projection to projection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diag.compression import calibrated
from diag.compression.compressing import Settings
from diag.inputs.texts import load_text
from diag.inputs.windows import token_windows
from diag.jobs.session import Session
from diag.jobs.work import failing
from diag.models.transformer import load_model, load_tokenizer
from diag.runs.folder import Job, RunFolder, digest
from diag.runs.manifest import SCHEMA, make_manifest
from diag.statistics.evaluation import model_losses
from tdmoe import methods
from tdmoe.numerics.ranks import Ranks
from tdmoe.problems import InputError
from tdmoe.runtime.calibration import experts_modules
from tdmoe.runtime.modules import dense_view
from tdmoe.stacks import joint
from tdmoe.stacks.families import MEMBERS
from tdmoe.tucker.rank_search import Frontier

NAME = "sensitivity"
VERSION = 2
TABLE = "sensitivity"
COLUMNS = (
    "layer",
    "projection",
    "ranks",
    "kept_ratio",
    "squared_error",
    "loss",
    "loss_change",
    "sensitivity",
    "status",
)
TOKENS = 65_536
FLOOR = 0.25  # of the median sensitivity: a stack whose loss did not rise is not free, and small changes are noisy


class Sensitivity:
    """The jobs of a session of frontiers, each as one measurement. Use as a context manager."""

    def __init__(self, session: Session, settings: Settings, ratio: float) -> None:
        """InputError where text or tokenizer of the calibration are not there."""
        self.session, self.settings, self.ratio = session, settings, ratio
        self._method, self._options = methods.parse(settings.method)
        identity = {
            **{"method": settings.method, "ratio": ratio, "moments": settings.moments, "tokens": TOKENS},
            **{"probe_version": VERSION, "device": session.device.partition(":")[0]},
        }
        manifest = make_manifest(
            command=NAME,
            command_line=session.request.command_line,
            model=session.model.name,
            commit=session.checkpoint.files.commit,
            fingerprint=session.checkpoint.structure_fingerprint(),
            config=identity,
            device=session.device,
        )
        weights = digest([session.folder.identities[job]["weights"] for job in session.stacks])
        identities = {Job(NAME, job.layer, job.projection): {**identity, "weights": weights} for job in session.stacks}
        short = digest([SCHEMA, list(identities.values()), [job.key for job in identities]])[:8]
        path = Path("runs") / f"{session.model.name}-{NAME}-{short}"
        columns, changed = {TABLE: COLUMNS}, session.checkpoint.changed
        self.folder = RunFolder(path, manifest, identities, given=False, columns=columns, changed=changed)

    def __enter__(self) -> Sensitivity:
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.close()

    def execute(self, frontiers: Mapping[str, Frontier], on_done: Callable[[], None]) -> None:
        """Measure what is pending. `frontiers` are by PROJECTION and layer, as `key` says."""
        session = self.session
        if pending := self.folder.pending():
            self.folder.begin()
            with failing(self.folder, pending):
                model = load_model(session.model, session.checkpoint.files, session.device)
                windows_WT = self._windows()
                whole = float(model_losses(model, windows_WT).mean())
                stacks = {key(job): stack for job, stack in session.stacks.items()}
                for job in pending:
                    started = time.perf_counter()
                    row = self._measured(job, stacks[key(job)], frontiers[key(job)], model, windows_WT, whole)
                    self.folder.finish(job, {TABLE: [row]}, {}, time.perf_counter() - started)
                    on_done()
        self.folder.write_table(TABLE, COLUMNS)

    def weights(self) -> list[float]:
        """Weights of the stacks, in the order of the session."""
        found = [float(row["sensitivity"]) for row in self.folder.rows(TABLE)]
        least = FLOOR * float(np.median([s for s in found if s > 0] or [1.0]))
        return [max(least, s) for s in found]

    def _measured(
        self, job: Job, stack: joint.Stack, points: Frontier, model: Any, windows_WT: Tensor, whole: float
    ) -> dict[str, Any]:
        dense = int(np.prod(stack.shape))
        at = max(0, int(np.searchsorted(points.parameters_n, (1 - self.ratio) * dense, side="right")) - 1)
        ranks = Ranks(*map(int, points.ranks_n3[at]))
        reader = joint.reader(stack, self.settings.memory)
        statistics = calibrated.statistics_of(self.settings.statistics, stack)
        device = self.session.device
        allotment = methods.Allotment(self.ratio, ranks)
        made = self._method.compress(reader, self._options, allotment, statistics, device=device)
        members = MEMBERS[job.projection]
        views = [dense_view(experts_modules(model)[job.layer], member) for member in members]
        kept = [view.clone() for view in views]
        with torch.no_grad():
            for e in range(stack.shape[0]):
                for view, W_OI in zip(views, made.members(e, e + 1)[0].chunk(len(members)), strict=True):
                    view[e] = W_OI.to(view)
            loss = float(model_losses(model, windows_WT).mean())
            for view, original in zip(views, kept, strict=True):
                view.copy_(original)
        squared = float(points.squared_n[at])
        return {
            **{"layer": job.layer, "projection": job.projection, "ranks": "x".join(map(str, ranks))},
            **{"kept_ratio": ranks.parameters(stack.shape) / dense, "squared_error": squared, "loss": loss},
            **{"loss_change": loss - whole, "sensitivity": (loss - whole) / squared if squared > 0 else 0.0},
            "status": "ok",
        }

    def _windows(self) -> Tensor:
        """The first windows of the text that the statistics are from."""
        assert self.settings.statistics is not None, "checked before"
        config = calibrated.config(Path(self.settings.statistics))
        try:
            text = load_text(config["text"])
        except ValueError as error:
            raise InputError("text", config["text"], str(error), "calibrate again") from error
        tokenizer = load_tokenizer(self.session.model, self.session.checkpoint.files)
        return token_windows(tokenizer, text, max(TOKENS, config["window"]), config["window"])


def key(job: Job) -> str:
    """Key of a stack, whatever is done to it."""
    return f"{job.layer} {job.projection}"
