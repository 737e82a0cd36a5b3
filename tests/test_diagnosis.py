"""One call from Python gives what the commands write."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import diag
from diag import diagnose
from tdmoe.problems import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_tables_and_claims_are_those_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = diagnose("mini", ["spectra"], layers="1", projections="gate,up", settings={"spectra": {"jackknife": 2}})
    written = list(csv.DictReader((found.folder / "tables" / "spectra.csv").open()))
    assert [float(row["alpha"]) for row in written] == list(found.tables["spectra"]["alpha"])
    assert {row["projection"] for row in written} == {"gate", "up"} and not found.failures
    done = [claim for claim in found.claims if claim["quantity"] == "measured"]
    assert done and done[0]["value"] == 2
    again = diagnose("mini", ["spectra"], layers="1", projections="gate,up", settings={"spectra": {"jackknife": 2}})
    assert again.folder == found.folder


def test_what_is_no_probe_is_named() -> None:
    with pytest.raises(InputError, match="probes: spectrum is no probe; known are spectra, .*; give some of these"):
        diagnose("mini", ["spectrum"])


@pytest.mark.parametrize("name", diag.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(diag, name).__name__ == name
