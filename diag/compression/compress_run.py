"""One `compress` command: calibration, the budget of every stack, the stacks, and the checkpoint around them.

Everything that headers can tell is checked before the first of these begins. What one step needs of the one before is
in that one's own run folder, so that each goes on where it was stopped.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from diag.compression import calibrating, compressing, frontier
from diag.compression.calibrated import layer_sums, moments_digest, saved_moments
from diag.compression.calibrating import Calibration
from diag.compression.compressing import Settings
from diag.compression.sensitivity import Sensitivity, key
from diag.jobs.session import Request, Session
from diag.runs.folder import Job
from tdmoe import methods, spec
from tdmoe.compression.counted import parameters
from tdmoe.compression.layer_sensitivity import harder, sensitivity, significant_ranks
from tdmoe.numerics.errors import Kind
from tdmoe.problems import InputError
from tdmoe.runtime.calibration import LayerMoments, PerExpert
from tdmoe.stacks import joint
from tdmoe.stacks.joint import Stack
from tdmoe.tucker.rank_search import Frontier
from tdmoe.tucker.shared_budget import importance, share_by_importance, share_globally


@dataclass(frozen=True)
class Command:
    """A `compress` command as typed. `frontier`: also where the budget does not need it.

    `calibration` is that to be made; None where `statistics` are given, or none. `ratio` is None where the method's
    options fix the storage.
    """

    model: str
    method: str
    ratio: float | None
    to: Path
    memory: int
    frontier: bool
    statistics: Path | None
    calibration: calibrating.Settings | None
    where: dict[str, Any]  # layers, projections, device, out, revision
    how: dict[str, Any]  # seed, engine, fresh, command_line
    errors: tuple[Kind, ...] | None = None  # to measure; None for what costs little beside making the stack

    def afresh(self) -> Command:
        """The same with --fresh."""
        return replace(self, how={**self.how, "fresh": True})


class Compression:
    """A checked plan. Use as a context manager; `session` is the run of the stacks themselves."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self._method, self._options = methods.parse(command.method)
        self._sharing = self._method.shares_budget(self._options)
        self._dense_layers = self._method.leaves_dense(self._options)
        self._opened = ExitStack()
        self.calibration: Calibration | None = None
        self.frontiers: Session | None = None
        self.sensitivity: Sensitivity | None = None
        self.layer_sensitivities: dict[int, float] = {}
        try:
            self._settings = self._calibrated()
            self.session = self._session("compress", self._settings)
            compressing.check_source(self.session)
            self.ratio = self._targeted_ratio()
            if command.frontier or self._sharing.across == "global":
                text = spec.text(self._method.NAME, self._method.frontier_options(self._options))
                where = {**command.where, "out": None}
                self.frontiers = self._session("frontier", replace(self._settings, method=text, errors=None), where)
                if self._sharing.by_loss:
                    assert self.ratio is not None, "it shares a budget"
                    alone = replace(self._settings, method=text)
                    self.sensitivity = self._opened.enter_context(Sensitivity(self.frontiers, alone, self.ratio))
            if self._dense_layers:
                self._harder()
            if self._shared:
                compressing.check_to(self.session, settled=False)
            else:
                same = self.ratio is None or self.ratio == command.ratio
                self._settle(None if same else dict.fromkeys(self._keys, (self.ratio or 0.0, ())))
        except BaseException:
            self._opened.close()
            raise

    def __enter__(self) -> Compression:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def notes(self) -> list[str]:
        """Notes of the calibration and of the stacks."""
        return [*([] if self.calibration is None else self.calibration.notes()), *self.session.notes()]

    def points(self) -> dict[str, Frontier]:
        """The frontiers, once they are there."""
        session = self.frontiers
        assert session is not None
        return {key(job): frontier.from_arrays(session.folder.arrays(job)) for job in session.stacks}

    def settle(self) -> None:
        """Give every stack its share of the budget, once calibration and frontiers are there."""
        if self._shared:
            by = {"global": self._by_frontiers, "activation": self._by_importance}
            share = by.get(self._sharing.across, self._by_sensitivity)
            self._settle(share())

    @property
    def _shared(self) -> bool:
        return self._sharing.across != "uniform" or self._dense_layers > 0

    @property
    def _keys(self) -> list[str]:
        return [job.key for job in self.session.stacks]

    def _calibrated(self) -> Settings:
        command = self.command
        folder, moments = command.statistics, None
        if folder is not None:
            moments = saved_moments(folder)
        elif command.calibration is not None:
            names = ("layers", "device", "revision")
            request = calibrating.Request(
                command.model,
                command.calibration,
                command_line=command.how["command_line"],
                **{name: command.where[name] for name in names},
            )
            self.calibration = self._opened.enter_context(Calibration(request))
            folder = self.calibration.folder.path
            moments = moments_digest(self.calibration.folder.identities.values())
        return Settings(
            command.method,
            command.ratio,
            str(command.to.absolute()),
            None if folder is None else str(folder.absolute()),
            moments,
            self.calibration is not None,
            command.memory,
            errors=command.errors,
        )

    def _session(self, name: str, settings: Settings, where: dict[str, Any] | None = None) -> Session:
        request = Request(name, self.command.model, settings, **(where or self.command.where), **self.command.how)
        return self._opened.enter_context(Session(request))

    def _settle(self, allotted: dict[str, tuple[float, tuple[int, ...]]] | None) -> None:
        if allotted is not None:
            self.session = self._session("compress", replace(self._settings, allotted=allotted))
        compressing.check_to(self.session)

    def _targeted_ratio(self) -> float | None:
        """The fraction of the targeted stacks to remove; InputError where they are not that much of the model."""
        ratio = self.command.ratio
        if ratio is None or not self._sharing.of_model:
            return ratio
        whole = parameters(self.session.checkpoint)
        share = self._dense() / whole
        if ratio >= share:
            raise InputError(
                "ratio", f"{ratio} --ratio-of model", f"the chosen experts are {share:.1%} of the model", "give less"
            )
        return ratio / share

    def _dense(self) -> int:
        return sum(compressing.size(stack) for stack in self.session.stacks.values())

    def _by_frontiers(self) -> dict[str, tuple[float, tuple[int, ...]]]:
        assert self.frontiers is not None and self.ratio is not None
        found = list(self.points().values())
        weights = [float(stack.matrices) for stack in self.session.stacks.values()]  # gate and up count as two
        if self.sensitivity is not None:
            weights = self.sensitivity.weights()
        chosen = share_globally(found, weights, (1 - self.ratio) * self._dense())
        allotted = {}
        for (job, stack), points, at in zip(self.session.stacks.items(), found, chosen, strict=True):
            kept = (float(points.parameters_n[at]) + 0.5) / compressing.size(stack)
            ranks = tuple(int(rank) for rank in points.ranks_n3[at])
            given = self._method.has_table(self._options) or kept >= 1
            allotted[job.key] = (max(1 - kept, 1e-9), ranks if given else ())
        return allotted

    def _by_sensitivity(self) -> dict[str, tuple[float, tuple[int, ...]]]:
        """The most sensitive layers whole, the others cut harder."""
        layers: dict[int, list[Stack]] = {}
        for job, stack in self.session.stacks.items():
            layers.setdefault(job.layer, []).append(stack)
        for layer, stacks in layers.items():
            sums = self._sums(layer)
            readers = [joint.reader(stack, self.command.memory) for stack in stacks]
            ranks_E = sum(map(significant_ranks, readers)) / len(readers)
            assert isinstance(ranks_E, Tensor)
            self.layer_sensitivities[layer] = sensitivity(sums.tokens_E, ranks_E, sums.outlying_E)
        order = sorted(layers, key=lambda layer: -self.layer_sensitivities[layer])
        dense = order[: self._dense_layers]
        return {
            job.key: (1e-9, stack.shape) if job.layer in dense else (self._harder(), ())
            for job, stack in self.session.stacks.items()
        }

    def _harder(self) -> float:
        """Share that the layers not left dense lose; InputError where that is more than they have."""
        assert self.ratio is not None, "it leaves layers dense within a budget"
        layers, dense = len({job.layer for job in self.session.stacks}), self._dense_layers
        if dense >= layers or harder(self.ratio, layers, dense) >= 1:
            most = math.ceil(layers * (1 - self.ratio)) - 1
            give = f"give {most} or less" if most > 0 else "leave none of so few dense, or lower the ratio"
            raise InputError(
                "method", self._method.NAME, f"dense_layers={dense} of {layers} at ratio {self.ratio:g}", give
            )
        ratio = harder(self.ratio, layers, dense)
        try:
            for stack in self.session.stacks.values():
                self._method.check(stack.shape, self._options, ratio)
        except InputError as error:
            raise InputError(
                "method", self._method.NAME, f"dense_layers={dense} leaves the others less: {error}"
            ) from error
        return ratio

    def _by_importance(self) -> dict[str, tuple[float, tuple[int, ...]]]:
        layers: dict[int, list[Job]] = {}
        for job in self.session.stacks:
            layers.setdefault(job.layer, []).append(job)
        sums = [self._sums(layer) for layer in layers]
        importances = [importance(s.tokens_E.numpy(), s.gate_E.numpy()) for s in sums]
        sizes = [sum(compressing.size(self.session.stacks[job]) for job in jobs) for jobs in layers.values()]
        assert self.ratio is not None, "it shares a budget"
        kept = share_by_importance(importances, sizes, (1 - self.ratio) * sum(sizes))
        return {job.key: (1 - k, ()) for k, jobs in zip(kept, layers.values(), strict=True) for job in jobs}

    def _sums(self, layer: int) -> LayerMoments:
        assert self._settings.statistics is not None, "checked before"
        return layer_sums(Path(self._settings.statistics), layer)


def own_inputs(method: str, needs: methods.Needs, projections: str, asked: PerExpert = "none") -> PerExpert:
    """Projections whose experts' own inputs a calibration has to keep; InputError where `asked` is too little."""
    inputs = {"gate", "up"} & set(projections.split(","))
    if needs.own and asked == "none":
        return "all" if inputs else "down"
    if needs.own and inputs and asked == "down":
        raise InputError("per_expert", "down", f"{method} needs gate's and up's too", "give all, or --projections down")
    return asked
