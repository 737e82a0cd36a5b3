"""The names and fields of a compressed checkpoint, for those who write it and for those who load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

METHOD = "tdmoe"
VERSION = 1


def quantization_config(experts: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The field of config.json, from {layer: {projection: spec}}; see tdmoe/hub.py."""
    by_layer = {str(layer): dict(specs) for layer, specs in sorted(experts.items())}
    return {"quant_method": METHOD, "version": VERSION, "experts": by_layer}


def shard_name(layer: int, projection: str) -> str:
    """Name of the file that holds a compressed stack."""
    return f"experts-L{layer:03d}-{projection}.safetensors"
