"""tdmoe: how the experts of a Mixture-of-Experts language model are read, measured and compressed.

Imports neither torch nor transformers: every module imports what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any
from warnings import warn

__version__ = "0.1.0"

_OLD_NAMES = {  # until 0.2: a stack has members, which need not be experts
    "ExpertStack": ("tdmoe.stacks.stack", "WeightStack"),
    "TuckerExperts": ("tdmoe.forms.tucker", "TuckerWeights"),
    "BasisExperts": ("tdmoe.forms.bases", "BasisWeights"),
    "LowRankExperts": ("tdmoe.forms.low_rank", "LowRankWeights"),
    "DenseExperts": ("tdmoe.forms.dense", "DenseWeights"),
    "IntegerExperts": ("tdmoe.forms.integers", "IntegerWeights"),
    "ExpertsLinear": ("tdmoe.forms.grouped", "StackLinear"),
}


def __getattr__(name: str) -> Any:
    """An old name of a class, with a DeprecationWarning that says the new one."""
    if name not in _OLD_NAMES:
        raise AttributeError(f"module 'tdmoe' has no attribute {name!r}")
    module, new = _OLD_NAMES[name]
    warn(f"tdmoe.{name} is {module}.{new} now", DeprecationWarning, stacklevel=2)
    return getattr(import_module(module), new)
