"""The built wheel alone, in an empty environment, outside the checkout, runs the main job."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def call(*arguments: str | Path, cwd: Path) -> str:
    """Run and return stdout; a failure shows what was printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    result = subprocess.run([str(a) for a in arguments], cwd=cwd, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = "from hatchling.build import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    return folder / call(sys.executable, "-c", build, folder, cwd=ROOT).splitlines()[-1]


def test_the_wheel_holds_packages_assets_and_licences_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {"diag", "tdmoe", "reports"} == {t for t in top if not t.endswith(".dist-info")}
    for needed in (
        "diag/assets/mini/model.safetensors",
        "diag/assets/mini/README.md",
        "diag/assets/texts/wikitext2.txt.gz",
        "diag/assets/texts/LICENSES.md",
        "reports/templates/page.html.j2",
        "reports/templates/style.css",
    ):
        assert needed in names
    assert not [n for n in names if "__pycache__" in n or n.startswith("tests")]


def test_the_wheel_runs_spectra_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "env"
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    call(python, "-m", "pip", "install", "-q", "--no-compile", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    origin = call(python, "-c", "import diag, tdmoe, reports; print(diag.__file__)", cwd=tmp_path)
    assert str(home) in origin
    tool = python.with_name("tdmoe-diag")
    out = call(tool, "spectra", "--model", "mini", "--layers", "0", "--projections", "gate", "--quiet", cwd=tmp_path)
    page = tmp_path / out.splitlines()[-1]
    assert page.read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    assert "gate" in out and "(baseline)" in out
