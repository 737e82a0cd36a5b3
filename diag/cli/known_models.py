"""The command `models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from diag.cli import options
from diag.declare.setting import declared
from diag.declare.target import Target
from tdmoe.problems import InputError

if TYPE_CHECKING:
    from diag.models import describe

HELP = "Families and names that --model accepts; or what one checkpoint holds, and whether it can be measured."
MODEL = Annotated[
    str | None, typer.Option("--model", help="model to tell of: a name, a folder or a hub id (default: list all)")
]


def run(model: str | None, revision: str | None) -> None:
    if model is None:
        if revision is not None:
            raise InputError("revision", revision, remedy="give --model too")
        print_families()
        raise typer.Exit(0)
    from diag.models.describe import describe
    from diag.models.model import resolve
    from tdmoe.checkpoint.reader import Checkpoint

    found = resolve(model, revision)
    with Checkpoint(found.files()) as checkpoint:
        description = describe(checkpoint)
    print_description(found.name, description)
    raise typer.Exit(2 if description.refusal else 0)


COMMAND = options.made(
    "models", HELP, [options.parameter("model", MODEL, None), options.option(declared(Target)["revision"])], run
)


def print_families() -> None:
    """Every family with a row, and every bare name that --model takes."""
    from rich.table import Table

    from diag.models import describe
    from diag.models.catalog import HUB_IDS
    from diag.runs.terminal import stdout

    table = Table()
    for heading in ("family", "model_type", "experts on disk"):
        table.add_column(heading, overflow="fold")
    for row in describe.family_rows():
        table.add_row(*row)
    stdout().print(table)
    print("Known names, and their hub ids:")
    for name, hub_id in HUB_IDS.items():
        print(f"  {name:<36} {hub_id}")


def print_description(name: str, description: describe.Description) -> None:
    """Print a checkpoint's description, from its headers."""
    from rich.table import Table

    from diag.declare import parse
    from diag.models import describe
    from diag.runs.terminal import size, stdout

    print(name)
    for what, value in describe.facts(description):
        print(f"  {what:<16} {value}")
    if not description.groups:
        return
    table = Table()
    for heading in ("projection", "layers", "experts x output x input", "stored as", "a stack"):
        table.add_column(heading, justify="left" if heading in ("projection", "layers") else "right")
    for group in description.groups:
        shape = " x ".join(map(str, group.shape))
        table.add_row(group.projection, parse.spans(group.layers), shape, group.encoding, size(group.nbytes))
    stdout().print(table)
    print(f"experts {size(description.expert_bytes)} of {size(description.total_bytes)} in all")
