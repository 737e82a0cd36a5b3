"""Sums of a run that was stopped, until they are whole: one file that says what they are of and how far they go.

As with results, what does not match its SHA-256 is not used; the sums begin anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save as serialised

from tdmoe.checkpoint.atomic import write_bytes

FILE = "partial.safetensors"


def save(run: Path, identity: Any, done: int, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the sums. `identity` is what they must be of to be used again, `done` how much they hold."""
    about = {"identity": json.dumps(identity), "done": str(done)}
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_bytes(run / FILE, serialised(whole, about | {"sha256": _sha256(about, whole)}))


def load(run: Path, identity: Any) -> tuple[dict[str, NDArray[Any]], int] | None:
    """Sums as saved, and how far they go; None where there are none, of something else, or not as they were written."""
    if not (run / FILE).is_file():
        return None
    try:
        with safe_open(run / FILE, "np") as file:
            about = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except Exception:  # any damage means the same; safetensors' own errors share no base
        return None
    if about.pop("sha256", "") != _sha256(about, arrays) or about.get("identity") != json.dumps(identity):
        return None
    return arrays, int(about["done"])


def forget(run: Path) -> None:
    """Delete what was saved, once the sums are whole."""
    (run / FILE).unlink(missing_ok=True)


def _sha256(about: Mapping[str, str], arrays: Mapping[str, NDArray[Any]]) -> str:
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()
