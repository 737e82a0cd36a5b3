"""The contract of a method: what it is given of a stack, what it says of its options, and the factors it makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from tdmoe.forms import Factored
from tdmoe.method.truncated_svd import MetricOf
from tdmoe.numerics.ranks import Ranks, Shape, budget
from tdmoe.numerics.whitening import metric
from tdmoe.problems import InputError
from tdmoe.stacks.source import WeightSource
from tdmoe.tucker.rank_search import Frontier


@dataclass(frozen=True)
class StackStatistics:
    """Second moments of a stack's inputs: of all routed tokens, and of one expert's own where those were collected.

    `D_OO` is that of the loss' gradient at its outputs and `fisher_E` the trace of each expert's Fisher information,
    where collected. `tokens_E` are the tokens that each expert was routed.
    """

    C_II: Tensor
    own: Callable[[int], Tensor] | None = None
    D_OO: Tensor | None = None
    tokens_E: Tensor | None = None
    fisher_E: Tensor | None = None

    def metrics(self, moments: str, damping: float, device: str) -> MetricOf:
        """expert -> metric: of the `pooled` C, or of each `expert`'s own."""
        own = self.own
        if moments == "pooled":
            one = metric(self.C_II.to(device), damping)
            return lambda expert: one
        assert own is not None, "checked before"
        return lambda expert: metric(own(expert).to(device), damping)

    def shares(self, kind: str) -> Tensor:
        """(E,) in float64, summing to 1: by `frequency` or `fisher`; all alike where nothing tells experts apart."""
        found = self.tokens_E if kind == "frequency" else self.fisher_E
        assert found is not None, "checked before"
        found = found.double().cpu()
        return found / found.sum() if float(found.sum()) > 0 else alike(len(found))


Statistics = StackStatistics | None  # None where nothing was collected


def alike(experts: int) -> Tensor:
    """Equal shares."""
    return torch.full((experts,), 1.0 / experts, dtype=torch.float64)


@dataclass(frozen=True)
class Needs:
    """Parts of a calibration that a method's options use: any of it, gradients at outputs, each expert's own inputs."""

    statistics: bool = False
    outputs: bool = False
    own: bool = False


@dataclass(frozen=True)
class Sharing:
    """Rule by which a budget is shared among stacks, and what it counts.

    `across` uniform gives every stack the same ratio, global shares by the stacks' frontiers, activation by routing.
    `by_loss`: errors of a global budget count by the loss that they cost. `of_model`: the ratio counts the whole model.
    """

    across: Literal["uniform", "global", "activation"] = "uniform"
    by_loss: bool = False
    of_model: bool = False


@dataclass(frozen=True)
class Allotment:
    """A stack's share of the budget: the fraction of its parameters to remove, and ranks where these are given too."""

    ratio: float
    ranks: Ranks | None = None


@dataclass(frozen=True)
class Budgeted:
    """Options of every method that keeps to a budget. `ratio_of`: what the budget is counted of."""

    ratio_of: Literal["targeted", "model"] = "targeted"


@dataclass(frozen=True)
class NoOptions:
    """Options of a method that has none."""


class Method(ABC):
    """A way to compress stacks; the defaults are those of a method with nothing to check and no frontier.

    Only a method reads its own options: everyone else asks it. A registered method gives `VERSION`, and another one
    whenever what it makes changes, so that what it made before is not used again; those of this package share one,
    beside which a method may have its own.
    """

    NAME: ClassVar[str]
    DISPLAY: ClassVar[str]
    REFERENCE: ClassVar[str] = ""  # authors and year, or where it is described
    FAMILY: ClassVar[str] = ""  # kind of method: tensor, shared bases, matrix, rounding, control
    OPTIONS: ClassVar[type[Any]] = Budgeted
    TIES: ClassVar[tuple[str, ...]] = ("ratio_of",)  # options that off their default make a stack depend on others
    VERSION: ClassVar[str | int | None] = None
    LIGHT: ClassVar[bool] = False  # made by a few products over the stack: spectral norms would add over a quarter

    def needs(self, options: Any) -> Needs:
        """Statistics that have to be collected."""
        return Needs()

    def joins(self, options: Any) -> bool:
        """Tell whether gate and up are compressed as one stack."""
        return False

    def shares_budget(self, options: Any) -> Sharing:
        """Rule by which the budget is shared among stacks."""
        return Sharing(of_model=getattr(options, "ratio_of", "targeted") == "model")

    def leaves_dense(self, options: Any) -> int:
        """Number of the most sensitive layers that are left as they are."""
        return 0

    def tie(self, options: Any) -> str:
        """The first option that makes a stack depend on others, as key=value; empty where there is none."""
        given = ((field, getattr(options, field.name)) for field in fields(options) if field.name in self.TIES)
        return next((f"{field.name}={value}" for field, value in given if value != field.default), "")

    def check_alone(self, options: Any) -> None:
        """InputError where an option makes a stack depend on others, and each is to be measured by itself."""
        if tie := self.tie(options):
            why = f"{tie} joins stacks or shares a budget among them, here each is measured by itself"
            raise self.wrong(why, f"give it without {tie.partition('=')[0]}")

    def is_orthogonal(self, options: Any) -> bool:
        """Tell whether the change it makes is an orthogonal truncation in the metric of the weights."""
        return False

    def simpler(self, options: Any, shapes: Iterable[Shape], ratio: float) -> Iterator[tuple[Any, int]]:
        """Options that make the same factors with less work, wherever at most so many modes of a stack are cut."""
        return iter(())

    def fixes_storage(self, options: Any) -> bool:
        """Tell whether the options alone say how much is stored, so that a ratio would say nothing."""
        return False

    def wrong(self, why: str, remedy: str = "give one of them") -> InputError:
        """The refusal of a spec of this method; by default of two options that contradict each other."""
        return InputError("method", self.NAME, why, remedy)

    def check_options(self, options: Any) -> None:  # noqa: B027  most have nothing to check
        """InputError where they are wrong whatever the stack is. Called when a spec is read, before any model is."""

    def check(self, shape: Shape, options: Any, ratio: float) -> None:
        """InputError where ratio or options do not fit the stack. Called for every stack before any work."""
        if not self.fixes_storage(options):
            budget(shape, ratio)

    @abstractmethod
    def compress(
        self, reader: WeightSource, options: Any, allotment: Allotment, statistics: Statistics, *, device: str
    ) -> Factored:
        """The stack in one of the forms, not yet rounded to what is stored."""

    def memory(self, shape: Shape, options: Any, ratio: float) -> int:
        """Bytes that it works with beside the blocks of the stack as they are read."""
        return 2 * 4 * shape[0] * shape[1] * shape[2]  # float32: the stack once or twice

    def has_table(self, options: Any) -> bool:
        """Tell whether a point of the frontier says which ranks are best, and not only how much storage."""
        return False

    def frontier_options(self, options: Any) -> Any:
        """The options with all that leaves the frontier alone at its default; InputError where there is none."""
        raise InputError(
            "frontier", why=f"{self.NAME} has no frontier of ranks", remedy="give method tdmoe, or leave it out"
        )

    def frontier(self, reader: WeightSource, options: Any, statistics: Statistics, *, device: str) -> Frontier:
        """Storage against error of the stack, where `frontier_options` does not refuse."""
        raise AssertionError(f"{self.NAME} has none")


class Control(Method):
    """A method without options, whose storage is what it is."""

    REFERENCE, FAMILY = "control", "control"
    OPTIONS = NoOptions
    LIGHT = True

    def fixes_storage(self, options: Any) -> bool:
        """Always."""
        return True

    def compress(
        self, reader: WeightSource, options: Any, allotment: Allotment, statistics: Statistics, *, device: str
    ) -> Factored:
        """The control itself, whatever the statistics are."""
        return self.made(reader, device)

    @abstractmethod
    def made(self, reader: WeightSource, device: str) -> Factored:
        """The control."""
