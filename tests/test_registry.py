"""Our table of families against transformers' own registry of how experts are stored: every model type in it is
supported, or refused with a reason."""

from __future__ import annotations

import pytest
from transformers import conversion_mapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from tdmoe.problems import InputError
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.families import FAMILIES, UNSUPPORTED, Family

PARTS = ("_text", "_thinker", "_vision_encoder")  # of a multimodal model


def expert_sources(model_type: str) -> list[str]:
    """Patterns of published names that become experts."""
    found: list[str] = []
    for conversion in conversion_mapping.get_checkpoint_conversion_mapping(model_type) or []:
        if any("experts" in target and "shared" not in target for target in conversion.target_patterns):
            found += conversion.source_patterns
    return [s for s in found if any(part in s for part in ("expert", "linear", "moe")) and "shared" not in s]


def registered() -> dict[str, list[str]]:
    """{model type: patterns}; entries for classes or parts of a model count as their model."""
    types: dict[str, list[str]] = {}
    known = {
        *conversion_mapping._MODEL_TO_CONVERSION_PATTERN,
        *conversion_mapping._build_checkpoint_conversion_mapping(),
    }
    for name in sorted(known):
        bare = next((name.removesuffix(part) for part in PARTS if name.endswith(part)), name)
        if (sources := expert_sources(name)) and bare in CONFIG_MAPPING_NAMES:
            types.setdefault(bare, []).extend(sources)
    return types


REGISTERED = registered()
SUPPORTED: dict[str, Family] = {t: family for family in FAMILIES for t in family.model_types}


def test_the_registry_was_found() -> None:
    assert len(REGISTERED) > 40 and {"qwen3_moe", "mixtral", "deepseek_v3", "granitemoe"} <= REGISTERED.keys()


@pytest.mark.parametrize("model_type", REGISTERED)
def test_every_model_type_of_the_registry_is_accounted_for(model_type: str) -> None:
    assert (model_type in SUPPORTED) != (model_type in UNSUPPORTED)


@pytest.mark.parametrize("model_type", [t for t in REGISTERED if t in SUPPORTED])
def test_published_names_are_those_of_the_registry(model_type: str) -> None:
    """Every pattern of the registry is the end of one of our templates (`*` is the number of the expert)."""
    templates = {
        name
        for layout in SUPPORTED[model_type].layouts
        for source in layout.values()
        for name in (source.template, source.scales)
    }
    ours = {template.replace("{expert}", "*") for template in templates}
    for pattern in REGISTERED[model_type]:
        plain = pattern.replace("\\", "").rstrip("$").lstrip("^")
        assert any(name.endswith(plain) for name in ours), f"{model_type}: {plain} is none of {sorted(ours)}"


@pytest.mark.parametrize("model_type", UNSUPPORTED)
def test_what_is_left_out_is_refused_with_its_reason(model_type: str) -> None:
    with pytest.raises(
        InputError, match=f"model_type is '{model_type}', which is not supported: {UNSUPPORTED[model_type]}"
    ):
        architecture({"model_type": model_type})
