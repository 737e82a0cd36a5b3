"""`import tdmoe.hub` teaches transformers our format: from_pretrained(DIR) loads it and runs it in factor form.

config.json of a compressed checkpoint holds

    "quantization_config": {"quant_method": "tdmoe", "version": 1, "experts": {LAYER: {PROJECTION: SPEC}}}

SPEC is what tdmoe/runtime/modules.py makes a projection of. Factors are stored under the name of the layer's experts
module, as EXPERTS.PROJECTION.core and so on; everything else as in the original checkpoint.
"""

from __future__ import annotations

from typing import Any

from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from tdmoe.checkpoint.layout import METHOD, VERSION
from tdmoe.forms import Spec
from tdmoe.problems import InputError
from tdmoe.runtime.calibration import experts_modules
from tdmoe.runtime.modules import factorise


class TdmoeConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """Experts modules that are factored, and how."""

    def __init__(self, experts: dict[str, dict[str, Spec]], version: int = VERSION, **other: Any) -> None:
        if version != VERSION:
            raise InputError(
                "quantization_config",
                why=f"version is {version}, this tdmoe reads {VERSION}",
                remedy="install another one",
            )
        self.quant_method = METHOD
        self.version = version
        self.experts = experts


class TdmoeQuantizer(HfQuantizer):  # type: ignore[misc]
    """Replaces the experts modules before the weights are loaded."""

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        modules = experts_modules(model)
        for layer, specs in self.quantization_config.experts.items():
            if int(layer) not in modules:
                kind = type(model).__name__
                raise InputError(
                    "quantization_config",
                    why=f"layer {layer} of {kind} has no experts",
                    remedy=f"it has {sorted(modules)}",
                )
            factorise(modules[int(layer)], specs)
        return model

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True


if METHOD not in AUTO_QUANTIZER_MAPPING:  # a second import of this module under another name changes nothing
    register_quantization_config(METHOD)(TdmoeConfig)
    register_quantizer(METHOD)(TdmoeQuantizer)
