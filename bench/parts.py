"""Where the seconds of one run go: the command's own session, with a clock around its parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from diag.cli import running
from diag.jobs.session import Request, Session
from diag.probes.spectra.settings import Settings


def seconds_of_parts(model: Path, folder: Path) -> dict[str, float]:
    """{part: seconds} of `spectra --projections gate` on layer 0, without the interpreter's start."""
    clocks = dict.fromkeys(("Grams", "spectra", "job", "page"), 0.0)

    def clock(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return work(*arguments, **named)
            finally:
                clocks[name] += time.perf_counter() - started

        return timed

    from diag.probes.spectra import measure as probe
    from tdmoe.numerics import spectrum

    with ExitStack() as patches:
        for module, function, name in (
            (spectrum, "mode_grams", "Grams"),
            (probe, "mode_spectra", "spectra"),
            (probe, "run", "job"),
        ):
            patches.enter_context(patch.object(module, function, clock(name, getattr(module, function))))
        request = Request(
            "spectra",
            str(model),
            Settings(),
            layers="0",
            projections="gate",
            device="cpu",
            out=folder / "run-parts",
            fresh=True,
        )
        with Session(request) as session:
            session.folder.open(fresh=True)
            session.execute(lambda count: None, lambda job: None, lambda note: None)
            clock("page", running.write_page)(session.folder, session.probe.TABLES)
    return {
        "Grams": clocks["Grams"],
        "eigensolves": clocks["spectra"] - clocks["Grams"],
        "fits": clocks["job"] - clocks["spectra"],
        "figures and page": clocks["page"],
    }
