"""`compress` and `compare` as a user runs them, whole processes, beside the bare factorisation of the same layer.

The layer is one of Qwen3-30B-A3B's shape. What a command does beside factorising (start, plan, errors, writing, table)
is what its ratio to the factorisation shows; both have what starting takes, measured on a tiny model, taken off.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.checkpoints import QWEN3_30B, TINY, write_runnable
from bench.process import measure
from bench.results import Figure

RATIO = 0.4
METHODS = (  # spec, projections
    ("tdmoe:gate_up=joint", "gate,up"),
    ("tdmoe:whitening=none", "gate"),
    ("mobe:steps=3,bases=28,rank=768", "gate"),
    ("svd_llm", "gate"),
)
RTN = "rtn:bits=4"
TOKENS = 8192  # enough for a second moment of 2048 inputs


def run(folder: Path) -> Iterator[Figure]:
    """Every figure of the section; `folder` takes about 5 GB."""
    tiny_shape = replace(TINY, experts=16, hidden=64)
    big, tiny = (write_runnable(folder / name, s) for name, s in (("big", QWEN3_30B), ("tiny", tiny_shape)))
    start = min(_compress(tiny, folder, RTN, "gate,up,down", ("--tokens", "0")) for _ in range(2))
    yield Figure("starting: the same command on a tiny model, subtracted below", f"{start:.1f} s")
    spectra = _command("spectra", "--model", big, "--out", folder / "spectra") - start
    rtn = _compress(big, folder, RTN, "gate,up,down", ("--tokens", "0")) - start
    yield Figure("spectra of the layer", f"{spectra:.1f} s")
    yield Figure(
        "rounding the layer to 4 bits over its spectra", f"{rtn:.1f} s, {rtn / spectra:.2f}", "<= 1", rtn <= spectra
    )
    statistics = folder / "statistics"
    _command("calibrate", "--model", big, "--tokens", TOKENS, "--out", statistics)
    for method, projections in METHODS:
        given = ("--tokens", "0") if "whitening=none" in method else ("--statistics", statistics)
        whole = _compress(big, folder, method, projections, given) - start
        bare = _bare(big, folder, method, projections, statistics)
        said = f"{whole:.1f} s, bare {bare:.1f} s, {whole / bare:.2f}"
        yield Figure(
            f"compress --method {method} of {projections}, over the bare factorisation",
            said,
            *_at_most(whole / bare, 1.3),
        )
    yield from _two_at_once(folder)


def _two_at_once(folder: Path) -> Iterator[Figure]:
    """Two processes that share the machine, in folders of their own."""
    alone = _comparisons(folder, 1)
    both = _comparisons(folder, 2)
    yield Figure("compare --model mini --preset quick, one alone", f"{alone:.0f} s")
    yield Figure("two of them at once, over one", f"{both:.0f} s, {both / alone:.2f}", *_at_most(both / alone, 2.5))


def _at_most(value: float, limit: float) -> tuple[str, bool]:
    return f"<= {limit}", value <= limit


def _command(*arguments: object) -> float:
    return measure("diag.cli.app", *arguments, "--device", "cpu", "--fresh", "--quiet").seconds


def _compress(model: Path, folder: Path, method: str, projections: str, given: tuple[object, ...]) -> float:
    where = ("--to", folder / "to", "--out", folder / "run")
    ratio = () if method == RTN or "bases=" in method else ("--ratio", RATIO)
    return _command(
        "compress", "--model", model, "--method", method, "--projections", projections, *ratio, *where, *given
    )


def _bare(model: Path, folder: Path, method: str, projections: str, statistics: Path) -> float:
    """Reading and factorising in a process of its own, its start left out."""
    result = folder / "bare.json"
    measure("bench.bare_once", model, method, projections, RATIO, statistics, result)
    return float(json.loads(result.read_text())["seconds"])


def _comparisons(folder: Path, count: int) -> float:
    """Seconds until all of so many have ended; each in a working folder of its own."""
    places = [folder / f"compare-{count}-{i}" for i in range(count)]
    for place in places:
        place.mkdir()
    command = [sys.executable, "-m", "diag.cli.app", "compare", "--model", "mini", "--preset", "quick", "--quiet"]
    started = time.perf_counter()
    running = [subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL) for place in places]
    if any(process.wait() for process in running):
        raise RuntimeError("compare failed")
    return time.perf_counter() - started
