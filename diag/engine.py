"""Where jobs run. `inline`: one after the other in this process; a failed job does not stop the others."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

from diag.run import Arrays, Job, RunFolder
from tdmoe.problems import InputError, WeightError

Work = Callable[[Job], tuple[list[dict[str, Any]], Arrays]]


def run_inline(folder: RunFolder, work: Work, on_done: Callable[[Job], None]) -> None:
    """Run every pending job of `folder`, saving each result as it is made.

    An exception of a job is recorded with its traceback and the run goes on; only Ctrl-C, or a result that cannot be
    written (OSError: disk full), ends it.
    """
    for job in folder.pending():
        started = time.perf_counter()
        try:
            rows, arrays = work(job)
            folder.finish(job, rows, arrays, time.perf_counter() - started)
        except OSError:  # of the run folder: a job's own reading raises WeightError
            raise
        except Exception as error:
            known = isinstance(error, InputError | WeightError)
            message = str(error) if known else f"{type(error).__name__}: {error} (see errors/{job.key}.txt)"
            folder.fail(job, message, traceback.format_exc())
        on_done(job)
