"""Lines that `injection` prints at --dry-run."""

from __future__ import annotations

from diag.compression.execution import print_calibration_plan
from diag.probes.injection.injecting import Injection
from diag.runs.terminal import size
from reports.formats import counted


def describe(injection: Injection) -> None:
    """--dry-run: the calibration, and what is injected where."""
    if injection.calibration is not None:
        print_calibration_plan(injection.calibration)
    settings, (windows, length) = injection.settings, injection.windows_WT.shape
    runs = len(injection.parts) * len(settings.designs) * len(settings.sizes)
    print(f"{injection.name}: injection, run folder {injection.folder.path}")
    print(
        f"{counted(len(injection.sites), 'site')}, {counted(len(injection.sources), 'residual')}, "
        f"{counted(len(settings.designs), 'design')}, {counted(len(settings.sizes), 'size')}: "
        f"{counted(runs, 'run')} over {counted(windows, 'window')} of {length} tokens, "
        f"{size(injection.held_bytes)} of weights and residuals; nothing was run"
    )
