"""Two residual streams compared, token by token.

    angle      2 atan2(||u - v||, ||u + v||),  u = x/||x||, v = y/||y||     in degrees, float64 (Kahan): exact where the
                                                                            arccos of a rounded cosine loses all digits
    ratio      ||y|| / ||x||

Legend: B windows of a batch, T tokens of a window, H hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def angles(x_BTH: Tensor, y_BTH: Tensor) -> Tensor:
    """Degrees between tokens' vectors, (B, T), in float64; NaN where one is zero or not finite."""
    u_BTH, v_BTH = (t / t.norm(dim=-1, keepdim=True) for t in (x_BTH.double(), y_BTH.double()))
    return torch.rad2deg(2 * torch.atan2((u_BTH - v_BTH).norm(dim=-1), (u_BTH + v_BTH).norm(dim=-1)))


def norm_ratios(x_BTH: Tensor, y_BTH: Tensor) -> Tensor:
    """||y|| / ||x||, (B, T), in float64; NaN where x is zero or one is not finite."""
    ratio_BT = y_BTH.double().norm(dim=-1) / x_BTH.double().norm(dim=-1)
    return torch.where(ratio_BT.isfinite(), ratio_BT, torch.nan)
