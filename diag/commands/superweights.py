"""The command `superweights`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from diag.cli.options import (
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
from diag.commands.running import command_line, report_failures, saved_whatever_happens, table_paths, write_page
from diag.declare.defaults import MEMORY
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
    memory: MemoryOption = MEMORY,
    out: OutOption = None,
    seed: SeedOption = 0,
    revision: RevisionOption = None,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    quiet: QuietOption = False,
) -> None:
    """Super weights, the rank that recovers them and other entries, and the perplexity without them."""
    from diag.cli import console
    from diag.cli.executing import execute_superweights
    from diag.declare import parse
    from diag.probes.superweights.run import Request, SuperWeights

    settings = Settings(
        *(prompt, text, tokens, window, threshold, most, entries, ranks, control_layer, methods, ratios),
        *(evaluation, windows, draws, parse.size("memory", memory)),
    )
    request = Request(
        model,
        settings,
        layers=layers,
        device=device,
        out=out,
        seed=seed,
        fresh=fresh,
        revision=revision,
        command_line=command_line(),
    )
    with saved_whatever_happens() as saved, SuperWeights(request) as work:
        saved.path = work.folder.path
        if dry_run:
            console.print_lines(work.described())
            raise typer.Exit(0)
        execute_superweights(work, quiet=quiet)
        page = write_page(work.folder, TABLES)
    console.print_lines([*_told(work), *table_paths(work.folder, TABLES), str(page)])
    report_failures(work.folder.failures())


def _told(work: SuperWeights) -> list[str]:
    """What was found, a line each."""
    lines = []
    for row in work.folder.rows("superweights"):
        if row["status"] == "none_found":
            spike = work.strongest()
            sizes = f"input {abs(spike['input_activation']):.3g}, output {abs(spike['output_activation']):.3g}"
            lines.append(
                f"{work.opened.name}: no super weight above {work.settings.threshold:g}; the strongest spike is at "
                f"{_place(spike)}: {sizes}"
            )
            continue
        lines.append(f"{work.opened.name}: {_place(row)} = {row['value']:.4g} ({row['status']})")
    return lines


def _place(row: dict[str, Any]) -> str:
    expert = "" if row["expert"] is None else f" expert {row['expert']}"
    return f"layer {row['layer']} {row['projection']}{expert} [{row['row']}, {row['column']}]"
