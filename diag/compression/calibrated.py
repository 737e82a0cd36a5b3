"""A finished calibration as other commands use it: checked, told from others by a digest, its statistics read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from diag.compression.calibrating import NAME, TABLE, VERSION, Settings, from_arrays
from diag.lockstep.variant import Recipe, Variant, needs_calibration
from diag.models.open_model import model_identity
from diag.runs import results
from diag.runs.files import read_json
from diag.runs.folder import Job, digest
from diag.runs.manifest import FILE
from tdmoe import methods
from tdmoe.problems import InputError, WeightError
from tdmoe.runtime.calibration import LayerMoments
from tdmoe.stacks.families import MEMBERS
from tdmoe.stacks.joint import Stack

IDENTITY = ("model", "device", "settings", "probe_version", "weights")  # of its results


def moments_digest(identities: Iterable[Mapping[str, Any]]) -> str:
    """Digest of what statistics were collected from and how, by the identities of a calibration's jobs."""
    return digest([{key: identity[key] for key in sorted(IDENTITY)} for identity in identities])


def saved_moments(folder: Path) -> str:
    """`moments_digest` of a finished calibration; InputError where the folder holds none."""
    try:
        about = read_json(folder / FILE)
        command, states = about["command"], {job["state"] for job in about["jobs"]}
        if command != NAME:
            raise InputError("statistics", folder, f"holds a run of '{command}'", f"give one of '{NAME}'")
        if states != {"done"}:
            raise InputError("statistics", folder, "is not finished", "run its calibrate command again")
        keys = [job["key"] for job in about["jobs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("statistics", folder, "is no run folder of tdmoe-diag calibrate", "give one") from error
    try:
        return moments_digest([results.read(folder, key) for key in keys])
    except (OSError, ValueError, KeyError) as error:
        raise InputError("statistics", folder, f"a result cannot be used ({error})", "calibrate again") from error


def check_statistics(folder: Path, stack: Stack, needs: methods.Needs) -> None:
    """InputError where the folder holds no calibration of this layer of these weights, or not all that is needed."""
    try:
        found = results.read(folder, Job(NAME, stack.layer, "experts").key)
    except FileNotFoundError as error:
        raise InputError(
            "statistics", folder, f"has nothing of layer {stack.layer}", "calibrate that layer too"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            "statistics", folder, f"layer {stack.layer} cannot be used ({error})", "calibrate again"
        ) from error
    if found["weights"] != model_identity(stack.checkpoint):
        raise InputError(
            "statistics",
            folder,
            f"were collected on other weights ({found['model']}), or on another copy of them",
            "calibrate this model",
        )
    if found["probe_version"] != VERSION:
        raise InputError("statistics", folder, "were collected by another version of this tool", "calibrate again")
    if needs.outputs and "gate_output_OO" not in found["arrays"]:
        raise InputError("statistics", folder, "hold no gradients at outputs", "calibrate with --outputs")
    sums = results.path(folder, found["job"], ".safetensors")
    if not sums.is_file():
        raise InputError("statistics", folder, f"the sums of layer {stack.layer} are missing", "calibrate again")
    with safe_open(sums, "np") as file:
        name = "down_II" if stack.projection == "down" else "input_II"
        own = len(file.get_slice(name).get_shape()) == 3
    if needs.own and not own:
        kind = "down" if stack.projection == "down" else "all"
        raise InputError(
            "statistics",
            folder,
            f"hold no inputs of each expert alone for {stack.projection}",
            f"calibrate with --per-expert {kind}",
        )


def statistics_of(folder: Path | str | None, stack: Stack) -> methods.StackStatistics | None:
    """Statistics of the stack, if any; gate and up share their inputs, and as one stack their gradients' blocks."""
    if folder is None:
        return None
    sums = layer_sums(Path(folder), stack.layer)
    members = MEMBERS[stack.projection]
    outputs = [D_OO for member in members if (D_OO := sums.output_moment(member)) is not None]
    own = sums.own_moments(members[0]) if sums.has_own(members[0]) else None
    D_OO = torch.block_diag(*outputs) if outputs else None
    return methods.StackStatistics(sums.moment(members[0]), own, D_OO, sums.tokens_E, sums.fisher(members))


def stack_variant(
    recipe: Recipe, layer: int, projection: str, statistics: Path | str | None = None, source: str = ""
) -> str:
    """The id of the model with one stack compressed alone, which is what tables of stacks measure.

    `source` says how its ranks were chosen where that does not follow from the recipe.
    """
    seen = "" if statistics is None or not needs_calibration(recipe) else _seen(Path(statistics))
    members = ",".join(MEMBERS[projection])
    return Variant(recipe.method, recipe.ratio, (layer,), members, seen, source=source).id


@lru_cache(maxsize=8)
def _seen(folder: Path) -> str:
    """Key of what methods see of a calibration's text; the text's name stands for it where it is not there any more."""
    about = config(folder)
    settings = Settings(**{field.name: about[field.name] for field in fields(Settings)})
    try:
        return settings.seen(settings.window or 0)
    except InputError:
        return f"{Path(settings.text).name} {settings.tokens} {settings.window} {settings.weighting}"


def layer_sums(folder: Path, layer: int) -> LayerMoments:
    """Sums of a layer of a calibration; WeightError where they are not those that it saved."""
    file = results.path(folder, Job(NAME, layer, "experts").key, ".safetensors")
    try:
        return from_arrays(dict(_arrays(folder, file.stem, file.stat().st_mtime_ns)))
    except (OSError, ValueError) as error:
        raise WeightError(f"{file}: the statistics cannot be used ({error}); calibrate again") from error


def config(folder: Path) -> dict[str, Any]:
    """Settings of the calibration, as run.json has them."""
    found: dict[str, Any] = read_json(folder / FILE)["config"]
    return found


def said(folder: Path) -> str:
    """Text and tokens, as `c4-calibration, 65,536 tokens`."""
    first = read_json(folder / FILE)["jobs"][0]["key"]
    tokens = results.read(folder, first)["tables"][TABLE][0]["tokens"]
    return f"{Path(str(config(folder)['text'])).name}, {tokens:,} tokens"


@lru_cache(maxsize=1)
def _arrays(folder: Path, key: str, time: int) -> Mapping[str, NDArray[np.float64]]:
    """One layer's, for its three projections."""
    return results.arrays(folder, results.read(folder, key))
