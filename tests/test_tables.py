"""Tables made from columns: cells with error, baseline and reason; a status is not borrowed by other columns."""

from __future__ import annotations

import pickle

import pytest

from diag.declare.column import Column, Columns
from diag.declare.common_columns import common
from diag.probes.operator import columns as operator
from diag.probes.spectra import columns as spectra
from reports.formats import measured
from reports.tables import tabulated

ROW = {"layer": 0, "projection": "gate", "mode": "input", "n": 20}


@pytest.mark.parametrize(
    ("status", "alpha", "reasons"),
    [
        ("insufficient_tail", 0.2, {"alpha (baseline)": "", "stable rank": "", "exponent": "insufficient tail"}),
        ("insufficient_points", None, {"alpha (baseline)": "insufficient points", "exponent": "insufficient points"}),
        ("skipped", None, {"alpha (baseline)": "skipped", "stable rank": "skipped", "exponent": "skipped"}),
        ("ok", 0.2, {"alpha (baseline)": "", "stable rank": "", "exponent": ""}),
    ],
)
def test_reason_of_an_empty_cell(status: str, alpha: float | None, reasons: dict[str, str]) -> None:
    table = tabulated("", spectra.TABLES["spectra"].pick(), [ROW | {"alpha": alpha, "status": status}])
    (line,) = table.lines
    assert {name: line[table.headings.index(name)].note for name in reasons} == reasons
    assert line[table.headings.index("n")].note == ""


def test_a_value_stands_with_its_error_its_interval_and_its_baseline() -> None:
    columns = (Column("x", "", error="e"), Column("e", ""), Column("y", "", unit="nats", low="a", high="b"),
               Column("a", ""), Column("b", ""), Column("z", "", form="percent", baseline="n"),
               Column("n", ""))  # fmt: skip
    row = {"x": 0.26612, "e": 0.0121, "y": 1.5, "a": 1.3, "b": 1.7, "z": 0.25, "n": 0.1}
    table = tabulated("", columns, [row])
    assert list(table.headings) == ["x", "y, nats", "z (baseline)"]
    assert [cell.text for cell in table.lines[0]] == [
        "0.266 ± 0.012",
        "1.50 (1.30 to 1.70)",
        "25.0\u00a0% (10.0\u00a0%)",
    ]


def test_values_across_a_column_in_lines_of_equal_keys() -> None:
    columns = [*common("layer", "mode"), Column("x", "")]
    rows = [{"layer": 1, "mode": "input", "x": 1}, {"layer": 1, "mode": "expert", "x": 2},
            {"layer": 3, "status": "failed"}, {"layer": 4, "mode": "input", "x": 3}]  # fmt: skip
    table = tabulated("", columns, rows, ["layer"], "mode")
    assert table.groups == [("", 1), ("expert", 1), ("input", 1)]
    assert [[cell.note or cell.text for cell in line] for line in table.lines] == [
        ["1", "2", "1"], ["3", "failed", "failed"], ["4", "not measured", "3"]]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (measured(None), "—"),
        (measured(0.1525, "exponent", baseline=0.025), "0.152 (0.025)"),
        (measured(0.25, "percent", error=0.012), "25.0 ± 1.2\u00a0%"),
        (measured(0.05, "change"), "+0.050"),
        (measured(-0.00004, "change"), "0.000"),
        (measured(0.05, "change", low=-0.01, high=0.11), "+0.050 (−0.010 to +0.110)"),
        (measured("tdmoe:whitening=none,decomposition=hosvd", "method"), "TD-MoE (unwhitened, HOSVD)"),
        (measured("truncate:mode=expert", "method"), "expert mode truncated"),
        (measured("insufficient_tail", "text"), "insufficient tail"),
    ],
)
def test_one_rule_for_values(text: str, expected: str) -> None:
    assert text == expected


def test_columns_are_their_names_in_order_and_know_what_each_is() -> None:
    found = Columns(*common("layer", "status"))
    assert found == ("layer", "status")
    assert pickle.loads(pickle.dumps(found)).described == found.described
    with pytest.raises(ValueError, match="twice"):
        Columns(*common("layer", "layer"))
    with pytest.raises(ValueError, match="x speaks of e, which is not in its table"):
        Columns(Column("x", "", error="e"))


@pytest.mark.parametrize("probe", [spectra, operator])
def test_every_column_says_what_it_means(probe: object) -> None:
    for columns in probe.TABLES.values():  # type: ignore[attr-defined]
        assert all(column.meaning for column in columns.pick())
        assert "status" in columns
