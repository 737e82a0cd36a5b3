"""Columns that tables of several probes have, described once and taken by name."""

from __future__ import annotations

from diag.declare.column import Column

_ALL = (
    Column("layer", "decoder layer, counted from 0", form="integer"),
    Column("projection", "gate, up or down projection of the experts, or another matrix by its name", form="text"),
    Column("expert", "the expert, or what is said of all of them: mean, max", form="text"),
    Column("mode", "mode of the unfolding: expert, output or input", form="text"),
    Column("method", "spec of the method that compressed", form="method"),
    Column("variant", "id of the compressed model", form="text"),
    Column("ratio", "fraction of the parameters removed of what the method targets", "removed", form="percent"),
    Column("rank", "rank, or ranks of the modes joined by x", form="text"),
    Column("bits_saved", "stored bits saved, of the file's, without input embeddings", form="percent"),
    Column("stored_bits", "bits that the compressed stack stores, scales and indices included", form="integer"),
    Column("kept_ratio", "stored bits over those of the dense stack", "kept", form="percent"),
    Column("compressed_layers", "layers that are compressed", form="text"),
    Column("weight_error", "||W - W^||_F / ||W||_F", form="error"),
    Column("functional_error", "the same weighted by the second moment of the layer's routed inputs", form="error",
           why=("not_calibrated",)),
    Column("functional_error_expert", "the same weighted by that of each expert's own inputs",
           "functional error per expert", form="error", why=("not_calibrated",)),
    Column("operator_error", "||W_e - W^_e||_2 / ||W_e||_2, over experts", form="error"),
    Column("angle_deg", "angle between the residual streams of compressed and dense model, mean over tokens", "angle",
           form="angle"),
    Column("tokens", "tokens that were measured", form="integer"),
    Column("seconds", "wall time", form="rough"),
    Column("status", "ok, or why something is empty", form="text"),
)  # fmt: skip
COMMON = {column.name: column for column in _ALL}


def common(*names: str) -> list[Column]:
    """These columns, in this order."""
    return [COMMON[name] for name in names]
