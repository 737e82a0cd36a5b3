"""`tdmoe-diag compress`: a job a stack, like a probe, that writes the stack's shard into --to; then the rest is copied.

--to holds `tdmoe.json` from the first moment on: what it is made from and with, and at the end every stack's ranks and
errors. It is taken up where it was left if that is the same, and refused otherwise.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diag.compression import calibrated
from diag.declare import parse
from diag.declare.defaults import MEMORY_BYTES
from diag.declare.probe import StackSettings as ProbeSettings
from diag.lockstep.variant import Recipe
from diag.runs.files import read_json, write_json
from diag.runs.folder import Job, digest, overwritten
from diag.runs.manifest import named
from diag.runs.results import Row
from tdmoe import methods
from tdmoe.checkpoint.atomic import is_leftover, remove_leftovers
from tdmoe.checkpoint.layout import shard_name
from tdmoe.checkpoint.reader import CONFIG, INDEX, Checkpoint
from tdmoe.compression import assemble
from tdmoe.compression.compress import affordable, compress_stack, write_stack
from tdmoe.compression.counted import bits, denominator, parameters
from tdmoe.compression.unquantised import QUANTIZATION
from tdmoe.forms.bases import Fit
from tdmoe.numerics.errors import KINDS, Kind
from tdmoe.numerics.ranks import Ranks
from tdmoe.problems import InputError, WeightError
from tdmoe.stacks import joint
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.blocks import BlockPlan
from tdmoe.stacks.families import JOINT, MEMBERS
from tdmoe.stacks.joint import Stack
from tdmoe.stacks.source import stored_dtype
from tdmoe.stacks.stack import WeightStack

if TYPE_CHECKING:
    from diag.jobs.session import Session

NAME = "compress"
TABLE = "compression"
VERSION = 5
COLUMNS = (
    *("layer", "projection", "method", "ratio", "ranks", "parameters", "stored_bits", "weight_error"),
    *("functional_error", "functional_error_expert", "operator_error", "seconds", "status"),
    *("operator_error_max", "kept_ratio", "shard_sha256", "steps", "stopped", "decrement"),
    *("operator_error_upper", "variant"),
)
TABLES = {TABLE: COLUMNS}
UNIDENTIFIED = ("memory", "to", "statistics", "calibrates", "allotted")  # settings that do not change the factors
ABOUT = "tdmoe.json"
SOURCE = "source"  # in it: what tells the weights that it was made of from others
DENSE = "dense"  # folder of the rebuilt checkpoint in --to
OURS = (
    *("experts-L*.safetensors", "rest-*.safetensors", INDEX, CONFIG),
    *(f"{DENSE}/{name}" for name in ("model-*.safetensors", INDEX, CONFIG)),
)


@dataclass(frozen=True)
class Settings(ProbeSettings):
    """`method` is a canonical spec, `statistics` a run folder of `calibrate` (None: not calibrated).

    `ratio` is None where the method's options fix the storage. `moments` is the digest of what that folder holds, or
    will hold where `calibrates`: it is made first. `allotted` has (fraction to remove, ranks or nothing) of every job,
    where the budget is not the same for all. `errors` are those to measure, None for what costs little beside making
    the stack (`affordable`).
    """

    method: str
    ratio: float | None
    to: str
    statistics: str | None = None
    moments: str | None = None
    calibrates: bool = False
    memory: int = MEMORY_BYTES
    allotted: Mapping[str, tuple[float, tuple[int, ...]]] | None = None
    errors: tuple[Kind, ...] | None = None

    def stacks(self, projections: list[str]) -> list[str]:
        """Gate and up as one, where the method joins them."""
        method, options = methods.parse(self.method)
        if not method.joins(options):
            return projections
        if missing := [name for name in MEMBERS[JOINT] if name not in projections]:
            raise InputError("gate_up", "joint", "needs gate and up", f"add {missing[0]} to --projections")
        return [JOINT, *(name for name in projections if name not in MEMBERS[JOINT])]

    def of(self, key: str) -> dict[str, Any]:
        """The stack's share of the budget, and the version of a method of one's own."""
        versions = methods.versions([self.method])
        own: dict[str, Any] = {"methods": versions} if versions else {}
        return own if self.allotted is None else own | {"allotted": json.loads(json.dumps(self.allotted[key]))}

    def allotment(self, stack: Stack) -> methods.Allotment:
        """Allotment of the stack: how much it may keep."""
        if self.allotted is None:
            return methods.Allotment(self.ratio or 0.0)
        ratio, ranks = self.allotted[Job(NAME, stack.layer, stack.projection).key]
        return methods.Allotment(ratio, Ranks(*ranks) if ranks else None)


@dataclass(frozen=True)
class Saved:
    """(dense - stored) / dense of what `tdmoe.compression.counted` counts: against the original's bits, and bf16's."""

    bits_saved: float
    bits_saved_bf16: float
    bits_saved_of: str

    @staticmethod
    def of(original: Checkpoint, compressed: Checkpoint) -> Saved:
        """Savings of a compressed checkpoint over its original, from headers."""
        before = bits(original), 16 * parameters(original)
        own, bf16 = ((whole - bits(compressed)) / whole for whole in before)
        return Saved(own, bf16, denominator(original))


def plan(stack: Stack, settings: Settings) -> BlockPlan:
    """InputError where method, ratio, stack and statistics do not fit."""
    method, options = methods.parse(settings.method)
    allotment = settings.allotment(stack)
    if allotment.ranks is None:
        method.check(stack.shape, options, allotment.ratio)
    family = architecture(stack.checkpoint.config).family
    if not family.factor_form:
        raise InputError(f"{family.name}: its experts run in a way of their own that has no factor form; not supported")
    quantization = stack.checkpoint.config.get(QUANTIZATION) or {}
    if (kind := quantization.get("quant_method")) not in (None, "fp8", "mxfp4"):
        raise InputError(
            f"{CONFIG}: quantization_config.quant_method is {kind!r}; compressing reads fp8 with block scales and "
            "mxfp4, use a bf16 version of the checkpoint"
        )
    needs = method.needs(options)
    if settings.statistics is None and needs.statistics:
        raise InputError("method", settings.method, "needs statistics of the inputs", "give --tokens or --statistics")
    if settings.statistics is not None and not settings.calibrates:
        calibrated.check_statistics(Path(settings.statistics), stack, needs)
    blocks = joint.plan(stack, settings.memory)
    products = method.memory(stack.shape, options, allotment.ratio)
    experts, _, inputs = stack.shape
    own = experts * inputs**2 * (8 + 4) if needs.own else 0  # statistics of each expert, and their projections
    return replace(blocks, peak_bytes=blocks.peak_bytes + products + own)


def run(
    stack: Stack,
    settings: Settings,
    *,
    device: str,
    seed: int,
    model: str,
    on_read: Callable[[int], None] | None = None,
) -> tuple[dict[str, list[Row]], Mapping[str, NDArray[np.float64]]]:
    """The row of `compression.csv`, and (evaluations, seconds, error) of an iterative fit; the factors go to --to."""
    method, options = methods.parse(settings.method)
    reader = joint.reader(stack, settings.memory, on_read)
    statistics = calibrated.statistics_of(settings.statistics, stack)
    kinds = affordable(stack, method) if settings.errors is None else settings.errors
    made = compress_stack(reader, method, options, settings.allotment(stack), statistics, device=device, kinds=kinds)
    if not math.isfinite(made.errors.weight):
        raise WeightError(f"{stack.projection} of layer {stack.layer}: the factors came out as NaN or infinite")
    sha256 = write_stack(Path(settings.to), stack, made.factored)
    dense_bits = size(stack) * 8 * stored_dtype(stack).itemsize
    row = {
        **{"layer": stack.layer, "projection": stack.projection, "method": settings.method, "ratio": settings.ratio},
        **{"ranks": "x".join(map(str, made.factored.ranks)), "parameters": made.factored.parameters},
        **{"stored_bits": made.stored_bits, "weight_error": made.errors.weight},
        **{"functional_error": made.errors.functional, "functional_error_expert": made.errors.functional_expert},
        **{"operator_error": made.errors.operator, "operator_error_max": made.errors.operator_max},
        **{"kept_ratio": made.stored_bits / dense_bits, "seconds": round(made.seconds, 3)},
        **{"operator_error_upper": made.errors.operator_upper, "shard_sha256": sha256},
        **{"status": _status(kinds, statistics is not None), "variant": _variant(stack, settings)},
    }
    fit: Fit | None = getattr(made.factored, "fit", None)
    curve = {} if fit is None else {"fit": np.array(fit.curve)}
    row |= {"steps": None, "stopped": None, "decrement": None}
    if fit is not None:
        row |= {"steps": fit.curve[-1][0], "stopped": fit.stopped, "decrement": fit.decrement}
    return {TABLE: [{column: row[column] for column in COLUMNS}]}, curve


def _variant(stack: Stack, settings: Settings) -> str:
    recipe = Recipe(settings.method, settings.ratio)
    share = "" if settings.allotted is None else str(settings.allotted[Job(NAME, stack.layer, stack.projection).key])
    return calibrated.stack_variant(recipe, stack.layer, stack.projection, settings.statistics, share)


def _status(kinds: tuple[Kind, ...], calibrated: bool) -> str:
    """Why an error is empty, if one is."""
    if set(kinds) != set(KINDS):
        return "not_measured"
    return "ok" if calibrated else "not_calibrated"


def error_kinds(option: str, text: str | None) -> tuple[Kind, ...] | None:
    """Errors of stacks to measure; the weight error is always among them."""
    if text is None:
        return None
    asked = parse.choices(option, text, KINDS)
    return tuple(kind for kind in KINDS if kind in asked or kind == "weight")


def check_source(session: Session) -> None:
    """InputError where what would be copied beside the factors is not all there, by the headers.

    Whether the model has more tensors than these only transformers knows: a calibration asks it.
    """
    session.checkpoint.refuse_adapter()
    session.checkpoint.entries(tuple(session.checkpoint.names()))


def check_to(session: Session, *, settled: bool = True) -> None:
    """InputError unless --to is empty, not there, or what the same command left (with --fresh: what any left).

    Until every stack's share of the budget is `settled`, what was asked for is compared.
    """
    to = _to(session)
    where, instead = named("--to", to, given=session.request.out_given)
    try:
        if session.model.folder is not None and to.resolve() == session.model.folder.resolve():
            raise InputError(f"{where}: is the model itself; {instead}")
        there = next(path for path in (to, *to.parents) if path.exists())
        if not there.is_dir():
            raise InputError(f"{where}: {there} is a file; {instead}")
        if not to.is_dir() or all(map(is_leftover, to.iterdir())):
            return
    except OSError as error:
        raise InputError(f"{where}: cannot be used ({error.strerror or error}); {instead}") from error
    about = _about(session)
    if about is None:
        raise InputError(f"{where}: is not empty and holds no compressed checkpoint; {instead}")
    same = about["identity"] == _identity(session) if settled else about.get("asked") == _asked(session)
    if not same and not session.request.fresh:
        raise InputError(
            f"{where}: holds a checkpoint made from other weights or with other settings; {instead}, or "
            "--fresh to replace it"
        )


def check_writable(to: Path) -> None:
    """Make the folder of --to; InputError, before anything is computed, where nothing can be written into it."""
    try:
        to.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=to):
            pass
    except OSError as error:
        raise InputError("to", to, f"cannot be written ({error.strerror or error})", "give another folder") from error


def begin(session: Session) -> None:
    """Do again what is done in the run folder but not whole in --to; mark --to as ours, and unfinished where it is."""
    to, fresh = _to(session), session.request.fresh
    for folder in (to, to / DENSE):
        remove_leftovers(folder)
    damaged = [job for job in session.stacks if not _whole(to, session, job)]
    session.folder.forget(damaged)
    if fresh or damaged or is_complete(session) is None:
        write_json(to / ABOUT, {"identity": _identity(session), "asked": _asked(session), "state": "unfinished"})
        for pattern in OURS if fresh else (INDEX, f"{DENSE}/{INDEX}"):
            for path in to.glob(pattern):
                path.unlink()


def is_complete(session: Session, *, dense: bool = False) -> Saved | None:
    """Savings, if --to holds all of what is asked for already."""
    about = _about(session)
    if about is None or about["identity"] != _identity(session) or about.get("state") != "complete":
        return None
    if "bits_saved_of" not in about:
        return None  # of an earlier version, which counted otherwise
    if not (_to(session) / INDEX).is_file() or (dense and not (_to(session) / DENSE / INDEX).is_file()):
        return None
    return Saved(float(about["bits_saved"]), float(about["bits_saved_bf16"]), str(about["bits_saved_of"]))


def _to(session: Session) -> Path:
    return Path(session.request.settings.to)  # type: ignore[attr-defined]


def _about(session: Session) -> dict[str, Any] | None:
    """Contents of the file about itself in --to; None where it is not ours."""
    try:
        about = read_json(_to(session) / ABOUT)
        return about if isinstance(about["identity"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _whole(to: Path, session: Session, job: Job) -> bool:
    """Tell whether the shard of a finished job is there as it was written."""
    rows, shard = session.folder.outcomes[job.key].tables.get(TABLE), to / shard_name(job.layer, job.projection)
    if not rows or not shard.is_file():
        return False
    with shard.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return found == str(rows[0]["shard_sha256"])


def finish(session: Session, *, dense: bool, on_written: Callable[[int], None] = lambda count: None) -> Saved:
    """Copy the rest and write the manifest, once every job is done; `on_written` is told the bytes as they go."""
    if (known := is_complete(session, dense=dense)) is not None:
        return known
    to = _to(session)
    stacks: dict[int, list[str]] = {}
    for job in session.stacks:
        stacks.setdefault(job.layer, []).append(job.projection)
    assemble.factored(to, session.checkpoint, session.arch, stacks, on_written)
    if dense:
        assemble.dense(to / DENSE, to, session.checkpoint, session.arch, stacks, on_written)
    if changed := session.checkpoint.changed():
        raise WeightError(overwritten(changed))
    manifest, statistics = session.folder.manifest, session.request.settings.statistics  # type: ignore[attr-defined]
    config = {key: value for key, value in manifest["config"].items() if key not in UNIDENTIFIED}
    with Checkpoint(to) as compressed:
        saved = Saved.of(session.checkpoint, compressed)
    about = {
        "identity": _identity(session),
        "asked": _asked(session),
        "state": "complete",
        **asdict(saved),
        "stacks": session.folder.rows(TABLE),
        "config": config,
        "calibrated_on": None if statistics is None else str(calibrated.config(Path(statistics))["text"]),
        "calibration": calibration_said(session.request.settings),  # type: ignore[arg-type]
        SOURCE: session.checkpoint.sampled_fingerprint(session.checkpoint.names()),
        **{key: manifest[key] for key in ("model", "commit", "seed", "versions", "device")},
    }
    write_json(to / ABOUT, about)
    return saved


def calibration_said(settings: Settings) -> str:
    """Text and tokens that the method saw, as `c4-calibration, 65,536 tokens`; empty where it needs none."""
    if settings.statistics is None or not methods.needs(settings.method).statistics:
        return ""
    return calibrated.said(Path(settings.statistics))


def size(stack: Stack) -> int:
    """Parameters of the dense stack."""
    return int(np.prod(stack.shape))


def stored_dense_bits(stack: Stack) -> int:
    """Bits of the stack as the checkpoint stores it, scales included."""
    parts = (stack,) if isinstance(stack, WeightStack) else (stack.gate, stack.up)
    return sum(8 * (part.nbytes + part.stored_scale_bytes) for part in parts)


def _identity(session: Session) -> str:
    return digest([session.folder.identities[job] for job in session.stacks])


def _asked(session: Session) -> str:
    """Digest of everything but the stacks' shares of the budget, which follow from it."""
    identities = (session.folder.identities[job] for job in session.stacks)
    return digest([{k: v for k, v in identity.items() if k != "allotted"} for identity in identities])
