"""`tdmoe-diag` as a process of its own, forked from one that has imported all of it: no test waits for imports."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

IMPORTED = (
    "torch",
    "seaborn",
    "powerlaw",
    "diag.cli.app",
    "diag.jobs.session",
    "diag.probes.spectra.measure",
    "reports.page",
)

if forks := "forkserver" in multiprocessing.get_all_start_methods():
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(list(IMPORTED))


def command(
    *arguments: str, code: str | None = None, cwd: Path | None = None, seconds: float = 300
) -> subprocess.CompletedProcess[str]:
    """`tdmoe-diag ARGUMENTS`, or `python -c CODE ARGUMENTS`."""
    if not forks:
        start = ["-c", code] if code else ["-m", "diag.cli.app"]
        call = [sys.executable, *start, *arguments]
        return subprocess.run(call, capture_output=True, text=True, cwd=cwd, timeout=seconds)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = server.Process(target=_act, args=(arguments, code, cwd or Path.cwd(), out, err))
        process.start()
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            raise AssertionError(f"{arguments} ran for more than {seconds} s")
        return subprocess.CompletedProcess(arguments, process.exitcode, out.read_text(), err.read_text())


def _act(arguments: tuple[str, ...], code: str | None, cwd: Path, out: Path, err: Path) -> None:
    """In the forked process."""
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    sys.argv = ["-c" if code else "tdmoe-diag", *arguments]
    if code:
        exec(compile(code, "-c", "exec"), {"__name__": "__main__"})
        return
    from diag.cli.app import main

    main()
