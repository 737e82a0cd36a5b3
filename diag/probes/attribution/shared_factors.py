"""The factors of every model, made once: where two specs must give the same ones they are those of one of them.

HOOI improves nothing where one mode is cut at most, which the ranks tell that were found; and ranks by what is stored
are the published ones where these have no full mode and meet their budget, which is known beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from diag.compression.calibrated import statistics_of
from diag.compression.compress_run import Compression
from diag.compression.factors import Factors, Source
from diag.jobs.work import measure
from diag.lockstep.variant import Recipe, Variant
from diag.probes.attribution.floors import mode_tails
from diag.probes.attribution.ladder import is_tucker
from diag.probes.attribution.plan import Plan
from diag.runs.results import Arrays, Tables
from tdmoe import methods, spec
from tdmoe.numerics.ranks import Shape
from tdmoe.stacks import joint

Make = Callable[[Sequence[Recipe], Source], list[Factors]]


class SharedFactors:
    """The factors of a plan's models. `make` does the work, or finds it done."""

    def __init__(self, plan: Plan, make: Make) -> None:
        self.plan, self._make = plan, make
        self._made: dict[Recipe, Factors] = {}

    def factors(self, variant: Variant) -> Factors:
        """Factors of a model; those of another recipe where it must give the same. What `make` raises goes through."""
        recipe = variant.recipe
        assert recipe is not None, "the dense model has no factors"
        if recipe not in self._made:
            found = self._same(variant)
            if found is None:
                (found,) = self._make([recipe], self.plan.sources[variant.projections])
            self._made[recipe] = found
        return self._made[recipe]

    def modes(self) -> None:
        """Measure what is due of the stacks' modes; a stack that fails leaves the others alone."""
        plan = self.plan
        for variant in dict.fromkeys(plan.variant(step) for step in plan.steps):
            due = set(plan.due_modes)
            if variant.recipe is None or not is_tucker(variant.recipe) or not due & set(plan.stacks(variant)):
                continue
            try:
                self.factors(variant)  # calibrates
            except Exception:
                continue  # said of the model itself
            (command,) = plan.sources[variant.projections].commands([variant.recipe])
            with Compression(command) as compression:
                settings = compression.session.request.settings
                for stack in compression.session.stacks.values():
                    if (place := (stack.layer, stack.projection)) in due:
                        tails = partial(self._tails, stack, settings.statistics)  # type: ignore[attr-defined]
                        measure(plan.folder, plan.modes[place], tails)

    def _tails(self, stack: joint.Stack, folder: str) -> tuple[Tables, Arrays]:
        statistics = statistics_of(folder, stack)
        assert statistics is not None, "collected for all models"
        return {}, mode_tails(joint.reader(stack, self.plan.request.memory), statistics.C_II, self.plan.device)

    def _same(self, variant: Variant) -> Factors | None:
        """Factors of another model of the plan that must be the same."""
        assert variant.recipe is not None
        method, options = methods.parse(variant.recipe.method)
        shapes = self.plan.stacks(variant)
        for simpler, most in method.simpler(options, shapes.values(), self.plan.request.ratio):
            recipe = Recipe(spec.text(method.NAME, simpler), variant.recipe.ratio)
            found = self._of_twin(self.plan.of_recipe(recipe, variant.projections))
            if found is not None and all(
                _cut(str(row["ranks"]), shapes[row["layer"], row["projection"]]) <= most for row in found.rows
            ):
                return found
        return None

    def _of_twin(self, twin: Variant) -> Factors | None:
        """Factors of a model; None where the plan has none, or it cannot be made."""
        if twin not in self.plan.parts:
            return None
        try:
            return self.factors(twin)
        except Exception:
            return None  # said of that model itself, where it is due


def _cut(ranks: str, shape: Shape) -> int:
    """Modes below full rank."""
    return sum(int(rank) < size for rank, size in zip(ranks.split("x"), shape, strict=True))
