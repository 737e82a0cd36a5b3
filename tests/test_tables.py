"""An empty cell gives its own reason: a fit's status is not borrowed by columns that it says nothing about."""

from __future__ import annotations

import pytest

from reports.run import Stack
from reports.spectra.tables import MEASUREMENTS, measurements


@pytest.mark.parametrize(
    ("status", "alpha", "reasons"),
    [
        (
            "insufficient_tail",
            0.2,
            {"alpha": "", "jackknife standard error": "", "density exponent": "insufficient tail"},
        ),
        ("insufficient_points", None, {"alpha": "insufficient points", "density exponent": "insufficient tail"}),
        ("skipped", None, {"alpha": "skipped", "jackknife standard error": "skipped", "density exponent": "skipped"}),
        ("ok", 0.2, {"alpha": "", "jackknife standard error": "", "density exponent": ""}),
    ],
)
def test_reason_of_an_empty_cell(status: str, alpha: float | None, reasons: dict[str, str]) -> None:
    row = {"layer": 0, "projection": "gate", "mode": "input", "n": 20, "alpha": alpha, "status": status}
    table = measurements(0, [Stack(0, "gate", rows={"input": row})])
    (line,) = [line for line in table.lines if line[0].text == "gate, input"]
    labels = [column.label for column in MEASUREMENTS]
    assert {label: line[labels.index(label)].note for label in reasons} == reasons
    assert line[labels.index("n")].note == ""
