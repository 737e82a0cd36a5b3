"""Columns that tables of several probes have, described once and taken by name."""

from __future__ import annotations

from diag.declare.column import Column, Row

_ALL = (
    Column("layer", "decoder layer, counted from 0", form="integer"),
    Column("projection", "gate, up or down projection of the experts, or another matrix by its name", form="text"),
    Column("expert", "the expert, or what is said of all of them: mean, max", form="text"),
    Column("mode", "mode of the unfolding: expert, output or input", form="text"),
    Column("method", "spec of the method that compressed", form="method"),
    Column("checkpoint", "folder of a compressed checkpoint on disk", form="name"),
    Column("variant", "id of the compressed model", form="text"),
    Column("ratio", "fraction of the parameters removed of what the method targets", "removed", form="percent"),
    Column("rank", "rank, or ranks of the modes joined by x", form="text"),
    Column("projections", "projections that are compressed", form="text"),
    Column("calibration", "what the method was calibrated on", form="text"),
    Column("bits_saved_of", "what bits_saved counts", "bits saved of", form="text"),
    Column("bits_saved", "stored bits saved, of the file's, without input embeddings", form="percent"),
    Column("stored_bits", "bits that the compressed stack stores, scales and indices included", form="integer"),
    Column("kept_ratio", "stored bits over those of the dense stack", "kept", form="percent"),
    Column("compressed_layers", "layers that are compressed", "layers", form="text"),
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
    Column("protocol", "how it was measured", form="name"),
    Column("status", "ok, or why something is empty", form="text"),
)  # fmt: skip
COMMON = {column.name: column for column in _ALL}


def common(*names: str) -> list[Column]:
    """Common columns of these names, in this order."""
    return [COMMON[name] for name in names]


def model_name(row: Row) -> str:
    """The compressed model that a row is of, without its layers, as `reports.theme.title` reads it.

    `mobe at 0.4`; one on disk with its folder, `rtn (folder)`.
    """
    method, ratio = str(row["method"]), row.get("ratio")
    folder = row.get("checkpoint") or method
    return method + ("" if ratio is None else f" at {ratio:g}") + ("" if folder == method else f" ({folder})")
