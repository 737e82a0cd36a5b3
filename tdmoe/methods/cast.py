"""Cast, a control: rounded to bf16 and nothing else, which is what any rebuilt checkpoint loses."""

from __future__ import annotations

import torch

from tdmoe.methods.identity import Identity


class Cast(Identity):
    """W^ = W in bf16."""

    NAME, DISPLAY = "cast", "bf16 cast"
    DTYPE = torch.bfloat16


METHOD = Cast()
