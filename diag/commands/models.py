"""The command `models`."""

from __future__ import annotations

from typing import Annotated

import typer

from diag.cli.options import RevisionOption
from tdmoe.problems import InputError


def models(
    model: Annotated[
        str | None, typer.Option("--model", help="tell of this one: a name, a folder or a hub id (default: list all)")
    ] = None,
    revision: RevisionOption = None,
) -> None:
    """What --model accepts: families and names; or what one checkpoint holds, and whether it can be measured."""
    from diag.cli import console

    if model is None:
        if revision is not None:
            raise InputError("revision", revision, remedy="give --model too")
        console.print_families()
        raise typer.Exit(0)
    from diag.models.describe import describe
    from diag.models.model import resolve
    from tdmoe.checkpoint.reader import Checkpoint

    found = resolve(model, revision)
    with Checkpoint(found.files()) as checkpoint:
        description = describe(checkpoint)
    console.print_description(found.name, description)
    raise typer.Exit(2 if description.refusal else 0)
