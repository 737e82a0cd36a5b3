"""Use from Python: probes of one model, their tables and what they say, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Diagnosis:
    """Findings of an experiment. `tables` are pandas data frames where pandas is installed, else lists of rows."""

    folder: Path  # of the run; `tdmoe-diag report` makes a page of it
    tables: Mapping[str, Any]
    claims: Sequence[Mapping[str, Any]]
    failures: Sequence[tuple[str, str]]  # jobs that failed, and why


def diagnose(
    model: str,
    probes: Sequence[str] = ("spectra", "experts", "quality", "attribution"),
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    out: Path | str | None = None,
    fresh: bool = False,
    quiet: bool = True,
    **said: Any,
) -> Diagnosis:
    """Run probes on a model as `tdmoe-diag compare` does, and give back tables and claims.

    `settings` are those of single probes by name, as {"quality": {"windows": 8}}; `said` is what an experiment says for
    all of them: methods, ratios, projections, layers, device, seed and so on. The same call finds its results again.
    InputError where something does not fit.
    """
    from diag import pages
    from diag.declare.probe import probes as known
    from diag.experiment.experiment import Calibration, Experiment, parts
    from diag.experiment.plan import Comparison, Request
    from diag.experiment.run import execute
    from tdmoe.problems import InputError

    if unknown := [name for name in probes if name not in known()]:
        raise InputError(f"probes: {unknown[0]} is no probe; known are {', '.join(known())}; give some of these")
    if isinstance(said.get("calibration"), Mapping):
        said["calibration"] = Calibration(**said["calibration"])
    listed: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
    chosen = {name: dict((settings or {}).get(name, {})) for name in probes}
    experiment = Experiment(model=model, parts=parts(**chosen), **listed)
    runs: list[dict[str, Any]] = []
    with Comparison(Request(experiment, None if out is None else Path(out), fresh, quiet, "diagnose")) as plan:
        plan.check()
        execute(plan, lambda folder, tables: runs.append(dict(folder.data(tables))))
        folder, failures = plan.folder.path, plan.folder.failures()
    tables = {name: _frame(rows) for run in runs for name, rows in run["tables"].items()}
    claims = [claim for run in runs for claim in pages.claims_of(run["command"], run["tables"], run["jobs"])]
    return Diagnosis(folder, tables, claims, failures)


def _frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.DataFrame(list(rows))
