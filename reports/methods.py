"""Method specs as people read them: the display name, then the options that differ from the defaults."""

NAMES = {
    "dense": "dense",
    "tdmoe": "TD-MoE",
    "mobe": "MoBE",
    "moe_svd": "MoE-SVD",
    "svd_llm": "SVD-LLM",
    "d2_moe": "D2-MoE",
    "rtn": "RTN",
}


def method_name(spec: str) -> str:
    """`tdmoe:whitening=none` as "TD-MoE whitening=none"; what is no spec (a folder's name) stays as it is."""
    name, _, options = spec.partition(":")
    return NAMES[name] + (f" {options.replace(',', ', ')}" if options else "") if name in NAMES else spec
