"""`tdmoe-diag compress`: a job a stack, like a probe, that writes the stack's shard into --to; then the rest is copied.

--to holds `tdmoe.json` from the first moment on: what it is made from and with, and at the end every stack's ranks and
errors. It is taken up where it was left if that is the same, and refused otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from diag.calibrating import NAME as CALIBRATE
from diag.calibrating import from_arrays
from diag.files import write_json
from diag.run import Job, Row, digest
from tdmoe import assemble, methods
from tdmoe.blocks import BlockPlan, BlockReader, plan_blocks
from tdmoe.checkpoint import CONFIG, INDEX, Checkpoint
from tdmoe.compress import compress_stack, stored_dtype, write_stack
from tdmoe.layout import shard_name
from tdmoe.problems import InputError
from tdmoe.stack import ExpertStack

if TYPE_CHECKING:
    from diag.session import Session

NAME = "compress"
TABLE = "compression"
VERSION = 1
COLUMNS = (
    *("layer", "projection", "method", "ratio", "ranks", "parameters", "stored_bits", "weight_error"),
    *("functional_error", "functional_error_expert", "operator_error", "seconds", "status"),
    *("operator_error_max", "kept_ratio"),
)
ABOUT = "tdmoe.json"
DENSE = "dense"  # folder of the rebuilt checkpoint in --to
OURS = (
    *("experts-L*.safetensors", "rest-*.safetensors", INDEX, CONFIG, ABOUT),
    *(f"{DENSE}/{name}" for name in ("model-*.safetensors", INDEX, CONFIG)),
)


@dataclass(frozen=True)
class Settings:
    """`method` is a canonical spec, `statistics` a run folder of `calibrate` (None: not calibrated)."""

    method: str
    ratio: float
    to: str
    statistics: str | None = None
    memory: int = 4_000_000_000


def plan(stack: ExpertStack, settings: Settings) -> BlockPlan:
    """InputError where method, ratio, stack and statistics do not fit."""
    method, options = methods.parse(settings.method)
    method.check(stack.shape, options, settings.ratio, calibrated=settings.statistics is not None)
    stored_dtype(stack)
    if settings.statistics is not None and Path(settings.statistics, "run.json").is_file():  # else it is made first
        _check_statistics(Path(settings.statistics), stack)
    blocks = plan_blocks(stack, settings.memory)
    core = 4 * int(np.prod(stack.shape))  # float32: the largest product is the stack itself
    return BlockPlan(
        blocks.resident, blocks.block_experts, blocks.strip_rows, blocks.buffers, blocks.reads, blocks.peak_bytes + core
    )


def run(
    stack: ExpertStack,
    settings: Settings,
    *,
    device: str,
    seed: int,
    model: str,
    on_read: Callable[[int], None] | None = None,
) -> tuple[list[Row], Mapping[str, NDArray[np.float64]]]:
    """The row of `compression.csv`; the factors go to --to."""
    method, options = methods.parse(settings.method)
    reader = BlockReader(stack, settings.memory, on_read)
    statistics = None if settings.statistics is None else _statistics(Path(settings.statistics), stack)
    made = compress_stack(reader, method, options, settings.ratio, statistics, device=device)
    write_stack(Path(settings.to), stack, made.factored)
    dense = int(np.prod(stack.shape))
    row = {
        **{"layer": stack.layer, "projection": stack.projection, "method": settings.method, "ratio": settings.ratio},
        **{"ranks": "x".join(map(str, made.factored.spec().get("ranks", []))), "parameters": made.factored.parameters},
        **{"stored_bits": made.stored_bits, "weight_error": made.errors.weight},
        **{"functional_error": made.errors.functional, "functional_error_expert": made.errors.functional_expert},
        **{"operator_error": made.errors.operator, "operator_error_max": made.errors.operator_max},
        **{"kept_ratio": made.factored.parameters / dense, "seconds": round(made.seconds, 3)},
        "status": "ok" if statistics is not None else "not_calibrated",
    }
    return [{column: row[column] for column in COLUMNS}], {}


def check_to(session: Session) -> None:
    """InputError unless --to is empty, not there, or what the same command left."""
    to = Path(session.request.settings.to)  # type: ignore[attr-defined]
    if to.exists() and not to.is_dir():
        raise InputError(f"--to {to}: is a file; give a folder")
    if not to.is_dir() or not any(to.iterdir()) or session.request.fresh:
        return
    try:
        earlier = json.loads((to / ABOUT).read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--to {to}: is not empty and holds no compressed checkpoint; give a new folder") from error
    if earlier != _identity(session):
        raise InputError(
            f"--to {to}: holds a checkpoint made from other weights or with other settings; give another folder, or "
            "--fresh to replace it"
        )


def begin(session: Session) -> None:
    """Mark --to as ours, and do again what is done in the run folder but not there."""
    to = Path(session.request.settings.to)  # type: ignore[attr-defined]
    if session.request.fresh and to.is_dir():
        for pattern in OURS:
            for path in to.glob(pattern):
                path.unlink()
    write_json(to / ABOUT, {"identity": _identity(session), "state": "unfinished"})
    session.folder.forget([job for job in session.stacks if not (to / shard_name(job.layer, job.projection)).is_file()])


def finish(session: Session, *, dense: bool) -> float:
    """Copy the rest and write the manifest, once every job is done; returns the bits saved.

    bits saved = (dense - stored) / dense over all tensors but the input embeddings, against the original's own bits.
    """
    to = Path(session.request.settings.to)  # type: ignore[attr-defined]
    stacks: dict[int, list[str]] = {}
    for job in session.stacks:
        stacks.setdefault(job.layer, []).append(job.projection)
    assemble.factored(to, session.checkpoint, session.arch, stacks)
    if dense:
        assemble.dense(to / DENSE, to, session.checkpoint, session.arch, stacks)
    manifest = session.folder.manifest
    config = {key: value for key, value in manifest["config"].items() if key not in ("to", "statistics", "memory")}
    before = bits(session.checkpoint)
    with Checkpoint(to) as compressed:
        saved = (before - bits(compressed)) / before
    about = {
        "identity": _identity(session),
        "state": "complete",
        "bits_saved": saved,
        "stacks": session.folder.rows(),
        "config": config,
        **{key: manifest[key] for key in ("model", "commit", "seed", "versions", "device")},
    }
    write_json(to / ABOUT, about)
    return saved


def bits(checkpoint: Checkpoint) -> int:
    """Stored bits of everything but the input embeddings."""
    entries = (checkpoint.entry(name) for name in checkpoint.names() if "embed_tokens" not in name)
    return 8 * sum(entry.nbytes for entry in entries)


def _identity(session: Session) -> str:
    return digest([session.folder.identities[job] for job in session.stacks])


def _check_statistics(folder: Path, stack: ExpertStack) -> None:
    """InputError where the folder holds no calibration of this layer of this model."""
    try:
        manifest = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        command, fingerprint = manifest["command"], manifest["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--statistics {folder}: is no run folder of tdmoe-diag calibrate") from error
    if command != CALIBRATE:
        raise InputError(f"--statistics {folder}: holds a run of '{command}'; give one of 'calibrate'")
    if fingerprint != stack.checkpoint.structure_fingerprint():
        raise InputError(
            f"--statistics {folder}: are of {manifest.get('model')} (fingerprint {fingerprint}), not of this model; "
            "calibrate this one"
        )


def _statistics(folder: Path, stack: ExpertStack) -> methods.StackStatistics:
    path = folder / "results" / f"{Job(CALIBRATE, stack.layer, 'experts').key}.safetensors"
    if not path.is_file():
        raise InputError(f"--statistics {folder}: has nothing of layer {stack.layer}; calibrate that layer too")
    sums = from_arrays(dict(_arrays(path)))
    if stack.projection != "down":
        return methods.StackStatistics(sums.input_moment())
    own = sums.down_moment_of if sums.down_II.ndim == 3 else None
    return methods.StackStatistics(sums.down_moment(), own)


@lru_cache(maxsize=1)
def _arrays(path: Path) -> Mapping[str, NDArray[np.float64]]:
    """One layer's, for its three projections."""
    return load_file(path)
