"""Every command that reads a text reads it alike, however its file is written, and says what it read otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diag.compression import calibrating
from diag.inputs.texts import load_text
from diag.probes.attribution.plan import Plan as Attribution
from diag.probes.attribution.plan import Request as AttributionRequest
from diag.probes.drift.run import Drift
from diag.probes.drift.run import Request as DriftRequest
from diag.probes.injection.injecting import Injection
from diag.probes.injection.injecting import Request as InjectionRequest
from diag.probes.quality.plan import Plan as Quality
from diag.probes.quality.plan import Request as QualityRequest
from diag.probes.superweights import settings as superweights
from diag.probes.superweights.run import Request as SuperWeightsRequest
from diag.probes.superweights.run import SuperWeights

SHORT: dict[str, Any] = {"tokens": 512, "window": 64}
CALIBRATED = calibrating.Settings("calibration.txt", **SHORT)


def calibrate(text: str) -> Any:
    return calibrating.Calibration(calibrating.Request("mini", calibrating.Settings(text, **SHORT)))


def attribution(text: str) -> Any:
    how: dict[str, Any] = {"ladder": "quick", "shapley": "none", "windows": 8, "window": 64, "calibration": CALIBRATED}
    return Attribution(AttributionRequest("mini", text=text, **how))


def super_weights(text: str) -> Any:
    return SuperWeights(SuperWeightsRequest("mini", superweights.Settings(text=text, **SHORT)))


COMMANDS: dict[str, Callable[[str], Any]] = {
    "calibrate": calibrate,
    "quality": lambda text: Quality(QualityRequest("mini", texts=[text], windows=8, window=64)),
    "drift": lambda text: Drift(DriftRequest("mini", text=text, **SHORT)),
    "attribution": attribution,
    "injection": lambda text: Injection(InjectionRequest("mini", CALIBRATED, text=text, **SHORT)),
    "superweights": super_weights,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_line_ends_and_marks_do_not_matter(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = load_text("c4-eval")[:8000]
    for name, content in (
        ("plain", text),
        ("windows", "\ufeff" + text.replace("\n", "\r\n")),
        ("calibration", text * 2),
    ):
        Path(f"{name}.txt").write_text(content, encoding="utf-8", newline="")
    found = []
    for name in ("plain.txt", "windows.txt"):
        with COMMANDS[command](name) as plan:
            windows_WT = next(iter(plan.texts.values())) if command == "quality" else plan.windows_WT
            found.append(
                (windows_WT.tolist(), [note for note in plan.notes() if "read as" in note or "left out" in note])
            )
    (ours, silent), (theirs, notes) = found
    option = "--texts" if command == "quality" else "--text"
    assert ours == theirs and len(ours) == 8 and not silent
    said = ["its byte order mark is left out", f"its CRLF line ends ({text.count(chr(10))}) are read as LF"]
    assert notes == [f"{option} windows.txt: {note}" for note in said]
