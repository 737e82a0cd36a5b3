"""diag: why did the decomposition fail? Probes, runs and the command line.

Public names are imported when they are asked for: `from diag import diagnose`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Claim": "diag.declare.claim",
    "Column": "diag.declare.column",
    "Columns": "diag.declare.column",
    "Diagnosis": "diag.experiment.diagnosis",
    "OpenModel": "diag.models.open_model",
    "Request": "diag.jobs.session",
    "Session": "diag.jobs.session",
    "StackSettings": "diag.declare.probe",
    "Walk": "diag.lockstep.walk",
    "derived": "diag.declare.setting",
    "diagnose": "diag.experiment.diagnosis",
    "register": "diag.declare.probe",
    "setting": "diag.declare.setting",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'diag' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
