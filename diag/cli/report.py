"""The command `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diag.cli import streams
from diag.cli.running import write_report


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="run folders; a compare folder stands for its parts")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="the page (default: report.html in the only run folder, or in this one)"),
    ] = None,
) -> None:
    """One page from one or several finished runs: verdict and comparison, every run, and how they were made."""
    from diag.runs.finished import load
    from diag.runs.terminal import print_lines
    from tdmoe.checkpoint.atomic import remove_leftovers
    from tdmoe.problems import InputError

    if out is not None and out.is_dir():
        raise InputError("out", out, "is a folder", f"give the file of the page, as {out / 'report.html'}")
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise InputError("out", out, "the page is HTML", "give a file that ends in .html")
    folders = list({path.resolve(): path for path in reversed(runs)}.values())[::-1]
    page = out or (folders[0] if len(folders) == 1 else Path()) / "report.html"
    found = load(folders)
    if found.left_out:
        typer.echo(f"left out, they have no page: {', '.join(map(str, found.left_out))}", err=True)
    try:
        remove_leftovers(page.parent, page.name)
        write_report(found, page)
    except OSError as error:
        raise InputError("out", page, f"cannot be written ({error.strerror or error})", "give another file") from error
    streams.files_saved.append("the page is saved")
    print_lines([str(page)])
