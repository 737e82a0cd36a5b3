"""The command `superweights`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from diag.commands.running import command_line, report_failures, saved_whatever_happens, table_paths, write_page
from diag.options import (
    DeviceOption,
    DryRunOption,
    FreshOption,
    MemoryOption,
    ModelOption,
    OutOption,
    QuietOption,
    RevisionOption,
    SeedOption,
    WindowOption,
)
from diag.probes.superweights import TABLES, Settings

if TYPE_CHECKING:
    from diag.probes.superweights.run import SuperWeights

DEFAULT = Settings()


def superweights(
    model: ModelOption,
    prompt: Annotated[str, typer.Option("--prompt", help="searched for spikes first")] = DEFAULT.prompt,
    text: Annotated[str, typer.Option("--text", help="searched for spikes too; gives the inputs' second moments")] = (
        DEFAULT.text
    ),
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="of that text, in whole windows")] = DEFAULT.tokens,
    window: WindowOption = None,
    threshold: Annotated[
        float, typer.Option("--threshold", min=0.0, help="that input and output of a spike have to exceed")
    ] = DEFAULT.threshold,
    most: Annotated[int, typer.Option("--most", min=1, help="super weights to look for")] = DEFAULT.most,
    entries: Annotated[int, typer.Option("--entries", min=1, help="followed in each group")] = DEFAULT.entries,
    ranks: Annotated[int, typer.Option("--ranks", min=2, help="in the table; every rank is computed")] = DEFAULT.ranks,
    control_layer: Annotated[
        int | None, typer.Option("--control-layer", help="without super weight (default: the middle one)")
    ] = None,
    methods: Annotated[
        str, typer.Option("--methods", help="specs, separated by commas; empty for none")
    ] = DEFAULT.methods,
    ratios: Annotated[str, typer.Option("--ratios", help="fractions to remove by methods that have a choice")] = (
        DEFAULT.ratios
    ),
    evaluation: Annotated[str, typer.Option("--eval-text", help="built-in text or a UTF-8 file, for the ablation")] = (
        DEFAULT.evaluation
    ),
    windows: Annotated[int, typer.Option("--eval-windows", min=1, help="of that text")] = DEFAULT.windows,
    draws: Annotated[int, typer.Option("--draws", min=0, help="of random weights to zero instead")] = DEFAULT.draws,
    layers: Annotated[str | None, typer.Option("--layers", help="decoder layers, as 0,12,24-30 (default: all)")] = None,
    device: DeviceOption = "auto",
    memory: MemoryOption = "4GB",
    out: OutOption = None,
    seed: SeedOption = 0,
    revision: RevisionOption = None,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    quiet: QuietOption = False,
) -> None:
    """Super weights, the rank that recovers them and other entries, and the perplexity without them."""
    from diag import console, parse
    from diag.probes.superweights.run import Request, SuperWeights

    settings = Settings(
        *(prompt, text, tokens, window, threshold, most, entries, ranks, control_layer, methods, ratios),
        *(evaluation, windows, draws, parse.size("--memory", memory)),
    )
    request = Request(model, settings, layers, device, out, seed, revision, command_line())
    with saved_whatever_happens() as saved, SuperWeights(request) as work:
        saved.path = work.folder.path
        if dry_run:
            console.print_lines(_plan(work))
            raise typer.Exit(0)
        _execute(work, fresh=fresh, quiet=quiet)
        page = write_page(work.folder, TABLES)
    with console.output_may_close():
        console.print_lines([*_told(work), *table_paths(work.folder, TABLES), str(page)])
    report_failures(work.folder.failures())


def _execute(work: SuperWeights, *, fresh: bool, quiet: bool) -> None:
    """The discovery, then what it leads to, under a bar of windows."""
    from diag import console

    with _counting(work.opened.name, quiet=quiet) as (note, advance):
        for line in work.discover(advance, fresh=fresh):
            note(line)
    if work.folder.failures():
        work.write_tables()
        return
    work.make(lambda recipes, source: console.make_factors(recipes, source, quiet=quiet))
    with _counting(work.opened.name, quiet=quiet) as (note, advance):
        work.execute(lambda key: note(f"{key}  {work.folder.outcomes[key].state}"), advance)


@contextmanager
def _counting(model: str, *, quiet: bool) -> Iterator[tuple[Callable[[str], None], Callable[[int], None]]]:
    """(print a line, count windows) on stderr."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, quiet=quiet, highlight=False)
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{model} windows", total=None)
        yield lambda line: console.print(line, markup=False), lambda count: bar.advance(task, count)


def _plan(work: SuperWeights) -> list[str]:
    searched, evaluated = work.windows_WT, work.evaluation_WT
    nbytes = work.opened.checkpoint.nbytes()
    return [
        f"{work.opened.name}: superweights, run folder {work.folder.path}",
        f"discovery: the prompt ({len(work.prompt_T)} tokens) and {len(searched)} windows of {searched.shape[1]} "
        "tokens, and again for every super weight that is found",
        "recovery: a matrix for every projection with a super weight, and a control",
        f"methods: {', '.join(recipe.name for recipe in work.recipes) or 'none'}",
        f"ablation: at most {work.passes} windows of {evaluated.shape[1]} tokens, {len(evaluated)} a pass",
        f"{nbytes / 1e9:.2f} GB to read and to hold, the loaded model; nothing was run",
    ]


def _told(work: SuperWeights) -> list[str]:
    """What was found, a line each."""
    lines = []
    for row in work.folder.rows("superweights"):
        if row["status"] == "none_found":
            lines.append(f"{work.opened.name}: no super weight above {work.settings.threshold:g}")
            continue
        expert = "" if row["expert"] is None else f" expert {row['expert']}"
        place = f"layer {row['layer']} {row['projection']}{expert} [{row['row']}, {row['column']}]"
        lines.append(f"{work.opened.name}: {place} = {row['value']:.4g} ({row['status']})")
    return lines
