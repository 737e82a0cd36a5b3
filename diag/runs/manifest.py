"""run.json: what was asked of which model, with which versions; what it says is checked before its folder is used.

`notes` say what was odd or other than asked, `peak_memory_bytes` is null where it is not known.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from diag.runs.files import read_json
from diag.runs.results import Row
from tdmoe.problems import InputError

FILE = "run.json"
SCHEMA = 2
PACKAGES = ("tdmoe-diag", "torch", "numpy", "scipy", "powerlaw", "safetensors", "tensorly", "transformers")


def make_manifest(**known: Any) -> Row:
    """The part of run.json that does not change while the run goes on."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {"schema": SCHEMA, **known, "versions": package_versions(), "started": started}


def package_versions() -> dict[str, str]:
    """Versions of everything that results may depend on."""
    return {"python": platform.python_version()} | {package: _version(package) for package in PACKAGES}


@cache
def _version(package: str) -> str:
    """Read once: a command may make a manifest for every method that it compares."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def check_same(folder: Path, where: str, instead: str, manifest: Mapping[str, Any], *, same_run: bool) -> None:
    """InputError unless the folder holds a run of ours, and one of this manifest's command and model if `same_run`.

    `where` is what messages call the folder, `instead` what they tell to do.
    """
    file = folder / FILE
    if not file.exists():
        raise InputError(f"{where}: the folder is not empty and holds no run; {instead}")
    try:
        earlier = read_json(file)
        schema, *kind = [earlier[key] for key in ("schema", "command", "fingerprint")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where}: its {FILE} is not one of ours; {instead}") from error
    if same_run and schema != SCHEMA:
        raise InputError(f"{where}: holds a run of another version of this tool; {instead}, or --fresh to replace it")
    if same_run and kind != [manifest[key] for key in ("command", "fingerprint")]:
        raise InputError(
            f"{where}: holds a run of '{earlier['command']}' on {earlier.get('model')} "
            f"(fingerprint {earlier['fingerprint']}), this is '{manifest['command']}' "
            f"on {manifest['model']} ({manifest['fingerprint']}); "
            f"{instead}, or --fresh to replace it"
        )


def named(option: str, folder: Path, *, given: bool) -> tuple[str, str]:
    """Name of a folder in messages, and what they tell to do: nobody gave the option for one that a command chose."""
    if given:
        return f"{option} {folder}", "give another folder"
    return str(folder), "move it away, or run the command in another folder"


def earlier(folder: Path) -> Row:
    """Manifest of the run before; nothing where there was none."""
    try:
        found = read_json(folder / FILE)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings of one command that are other than they were, in words."""
    found = [(name, before[name], now[name]) for name in now if name in before and before[name] != now[name]]
    return [f"{name.replace('_', ' ')} were {_short(old)}, are {_short(new)}" for name, old, new in found]


def _short(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
