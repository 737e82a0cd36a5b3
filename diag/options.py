"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Engine(StrEnum):
    """Where jobs run."""

    inline = "inline"
    ray = "ray"


class Weighting(StrEnum):
    """What a routed token counts for."""

    by_count = "count"
    by_gate = "gate_squared"


class PerExpert(StrEnum):
    """Of which inputs every expert has a matrix of its own."""

    none = "none"
    down = "down"
    all = "all"


class Dtype(StrEnum):
    """What the models run in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


ModelOption = Annotated[
    str, typer.Option("--model", help="mini (built in), a checkpoint folder, a hub id, or a name that `models` lists")
]
RevisionOption = Annotated[str | None, typer.Option("--revision", help="branch, tag or commit on the hub")]
RemoteOption = Annotated[
    bool, typer.Option("--remote", help="read byte ranges of tensors straight from the hub, store nothing")
]
LayersOption = Annotated[str | None, typer.Option("--layers", help="MoE layers, as 0,12,24-30 (default: all)")]
ProjectionsOption = Annotated[str, typer.Option("--projections", help="any of gate,up,down")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1")]
MemoryOption = Annotated[
    str,
    typer.Option(
        "--memory", help="most weights to hold in memory, as 4GB; a stack that is larger is read twice, block by block"
    ),
]
OutOption = Annotated[Path | None, typer.Option("--out", help="run folder (default: runs/MODEL-COMMAND-FINGERPRINT)")]
LARGEST_SEED = 2**63 - 1  # of a whole number in TOML and in torch's generators
SeedOption = Annotated[int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="of every random draw")]
EngineOption = Annotated[Engine, typer.Option("--engine", help="where jobs run: one by one in this process, or on Ray")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="print jobs, bytes to read and peak memory, do nothing")]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="measure all again, instead of using results in the run folder")
]
WindowOption = Annotated[
    int | None, typer.Option("--window", help="tokens the model sees at once (default: 2048, or its positions)")
]
WeightingOption = Annotated[
    Weighting, typer.Option("--weighting", help="of a routed token: 1, or its routing weight squared")
]
PerExpertOption = Annotated[
    PerExpert, typer.Option("--per-expert", help="a matrix for every expert's own inputs: of down, or of all three")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="no progress on stderr")]
CalibrationTextOption = Annotated[
    str, typer.Option("--calibration-text", help="to calibrate methods on: built-in text or a file")
]
CalibrationTokensOption = Annotated[int, typer.Option("--calibration-tokens", min=1, help="to calibrate methods on")]
DtypeOption = Annotated[Dtype, typer.Option("--dtype", help="what the models run in (auto: their own)")]
