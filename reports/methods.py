"""Method specs as people read them: the display name, then the options that differ from the defaults."""

from reports.theme import LOOKS

NAMES = {name: LOOKS[name].title for name in ("dense", "tdmoe", "mobe", "moe_svd", "svd_llm", "d2_moe", "rtn")}


def method_name(spec: str) -> str:
    """`tdmoe:whitening=none` as "TD-MoE whitening=none"; what is no spec (a folder's name) stays as it is."""
    name, _, options = spec.partition(":")
    return NAMES[name] + (f" {options.replace(',', ', ')}" if options else "") if name in NAMES else spec
