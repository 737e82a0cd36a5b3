"""Plans of probes of the whole model carried out under bars, for their own commands and for those that hold several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.progress import MofNCompleteColumn, TextColumn, TimeElapsedColumn

from diag.console import make_factors
from diag.progress import COUNTED, Shown, bars

if TYPE_CHECKING:
    from diag.factors import Factors, Recipe, Source
    from diag.probes.attribution.plan import Plan as AttributionPlan
    from diag.probes.drift.run import Drift
    from diag.probes.quality.plan import Plan
    from diag.probes.superweights.run import SuperWeights


def execute_quality(plan: Plan, notes: Iterable[str], *, quiet: bool) -> None:
    """Under a bar of windows and documents, of all models together."""
    from diag.probes.quality.run import Run

    made = make_factors(plan.request.recipes, plan.source, quiet=quiet) if plan.due_variants else []
    with bars(*COUNTED, quiet=quiet) as shown:
        for note in notes:
            shown.note(note)
        task = shown.bar.add_task(f"{plan.name} quality", total=plan.steps)
        Run(plan, made, lambda count: shown.bar.advance(task, count)).execute()


def execute_drift(plan: Drift, notes: Iterable[str], *, quiet: bool) -> None:
    """Under a bar of layers of windows, which all variants share."""
    with bars(*COUNTED, quiet=quiet) as shown:
        for note in [*notes, *plan.notes()]:
            shown.note(note)
        task = shown.bar.add_task(f"{plan.name} drift", total=plan.steps)
        plan.execute(_making(shown, quiet), lambda count: shown.bar.advance(task, count))


def execute_attribution(plan: AttributionPlan, notes: Iterable[str], *, quiet: bool) -> None:
    """Likewise."""
    from diag.probes.attribution.run import Run

    with bars(*COUNTED, quiet=quiet) as shown:
        for note in [*notes, *plan.notes()]:
            shown.note(note)
        task = shown.bar.add_task(f"{plan.name} attribution", total=len(plan.windows_WT) * plan.arch.depth)
        Run(plan, _making(shown, quiet), lambda count: shown.bar.advance(task, count)).execute()


def _making(shown: Shown, quiet: bool) -> Callable[[Sequence[Recipe], Source], list[Factors]]:
    """`make_factors`, which has bars of its own."""

    def make(recipes: Sequence[Recipe], source: Source) -> list[Factors]:
        if not shown.alone:
            return make_factors(recipes, source, quiet=quiet)
        shown.bar.stop()
        made = make_factors(recipes, source, quiet=quiet)
        shown.bar.start()
        return made

    return make


def execute_superweights(work: SuperWeights, *, fresh: bool, quiet: bool) -> None:
    """The discovery, then what it leads to, under a bar of windows."""
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with bars(*columns, quiet=quiet) as shown:
        task = shown.bar.add_task(f"{work.opened.name} windows", total=None)
        for line in work.discover(lambda count: shown.bar.advance(task, count), fresh=fresh):
            shown.note(line)
    if work.folder.failures():
        work.write_tables()
        return
    work.make(lambda recipes, source: make_factors(recipes, source, quiet=quiet))
    with bars(*columns, quiet=quiet) as shown:
        task = shown.bar.add_task(f"{work.opened.name} windows", total=None)
        state = work.folder.outcomes
        work.execute(lambda key: shown.note(f"{key}  {state[key].state}"), lambda n: shown.bar.advance(task, n))
