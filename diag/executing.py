"""Plans of probes of the whole model carried out under bars, for their own commands and for those that hold several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.progress import MofNCompleteColumn, TextColumn, TimeElapsedColumn

from diag.afresh import Afresh
from diag.console import make_factors
from diag.progress import COUNTED, Shown, bars

if TYPE_CHECKING:
    from diag.factors import Factors, Recipe, Source
    from diag.probes.attribution.plan import Plan as AttributionPlan
    from diag.probes.drift.run import Drift
    from diag.probes.quality.plan import Plan
    from diag.probes.superweights.run import SuperWeights

    Make = Callable[[Sequence[Recipe], Source], list[Factors]]


def execute_quality(plan: Plan, *, quiet: bool, afresh: Afresh | None = None, notes: Sequence[str] = ()) -> None:
    """Under a bar of windows and documents, of all models together.

    Here and below `afresh` is that of the work that the plan is a part of, and `notes` are kept with the plan's own.
    """
    from diag.factors import Unmade
    from diag.probes.quality.run import Run

    told = _opened(plan, notes)
    make = _maker(plan, afresh, quiet=quiet)
    unmade: Mapping[Recipe, str] = {}
    try:
        made = make(plan.request.recipes, plan.source) if plan.due_variants else []
    except Unmade as error:
        made, unmade = error.made, error.failed
    with bars(*COUNTED, quiet=quiet) as shown:
        for note in told:
            shown.note(note)
        task = shown.bar.add_task(f"{plan.name} quality", total=plan.steps)
        Run(plan, made, unmade, lambda count: shown.bar.advance(task, count)).execute()


def execute_drift(plan: Drift, *, quiet: bool, afresh: Afresh | None = None, notes: Sequence[str] = ()) -> None:
    """Under a bar of layers of windows, which all variants share."""
    told = _opened(plan, notes)
    with bars(*COUNTED, quiet=quiet) as shown:
        for note in told:
            shown.note(note)
        task = shown.bar.add_task(f"{plan.name} drift", total=plan.steps)
        plan.execute(_alone(shown, _maker(plan, afresh, quiet=quiet)), lambda count: shown.bar.advance(task, count))


def execute_attribution(
    plan: AttributionPlan, *, quiet: bool, afresh: Afresh | None = None, notes: Sequence[str] = ()
) -> None:
    """Likewise."""
    from diag.probes.attribution.run import Run

    told = _opened(plan, notes)
    with bars(*COUNTED, quiet=quiet) as shown:
        for note in told:
            shown.note(note)
        task = shown.bar.add_task(f"{plan.name} attribution", total=len(plan.windows_WT) * plan.arch.depth)
        Run(
            plan, _alone(shown, _maker(plan, afresh, quiet=quiet)), lambda count: shown.bar.advance(task, count)
        ).execute()


def _opened(plan: Plan | Drift | AttributionPlan, notes: Sequence[str]) -> list[str]:
    """The run folder taken up; notes for a person."""
    return plan.folder.open(fresh=plan.request.fresh, notes=[*notes, *plan.notes()])


def _maker(plan: Any, afresh: Afresh | None, *, quiet: bool) -> Make:
    """`make_factors`, whose notes are kept with the plan's results."""
    shared = afresh or Afresh(plan.request.fresh)
    return lambda recipes, source: make_factors(
        recipes, source, quiet=quiet, afresh=shared, on_notes=lambda notes: plan.folder.note(notes)
    )


def _alone(shown: Shown, make: Make) -> Make:
    """While this one, which has bars of its own, is at work, no others are shown."""

    def made(recipes: Sequence[Recipe], source: Source) -> list[Factors]:
        if not shown.alone:
            return make(recipes, source)
        shown.bar.stop()
        found = make(recipes, source)
        shown.bar.start()
        return found

    return made


def execute_superweights(
    work: SuperWeights, *, quiet: bool, afresh: Afresh | None = None, notes: Sequence[str] = ()
) -> None:
    """The discovery, then what it leads to, under a bar of windows."""
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with bars(*columns, quiet=quiet) as shown:
        task = shown.bar.add_task(f"{work.opened.name} windows", total=None)
        for line in work.discover(lambda count: shown.bar.advance(task, count), notes):
            shown.note(line)
    if work.folder.failures():
        work.write_tables()
        return
    work.make(_maker(work, afresh, quiet=quiet))
    with bars(*columns, quiet=quiet) as shown:
        task = shown.bar.add_task(f"{work.opened.name} windows", total=None)
        state = work.folder.outcomes
        work.execute(lambda key: shown.note(f"{key}  {state[key].state}"), lambda n: shown.bar.advance(task, n))
