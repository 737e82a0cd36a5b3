"""Settings of `drift`."""

from __future__ import annotations

from dataclasses import dataclass

from diag.declare.model_settings import Compressed
from diag.declare.setting import setting
from diag.declare.target import DTYPES


@dataclass(frozen=True, kw_only=True)
class Settings(Compressed):
    """Distance of compressed models' residual streams and routing from the dense model's, layer by layer."""

    ORDER = 60
    ALONE = ("tdmoe", "svd_llm")
    text: str = setting("wikitext2", "held-out text: a built-in one or a UTF-8 file")
    tokens: int = setting(16_384, "tokens of the text, in whole windows", least=1)
    window: int | None = setting(None, "tokens the model sees at once (default: 2048, or its positions)")
    scope: str = setting("one,all", "one layer at a time (one), all together (all), or both")
    dtype: str = setting("float32", "dtype that the models run in (auto: their own)", choices=DTYPES)
