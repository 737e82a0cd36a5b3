"""Find the experts of a checkpoint: every tensor of a stack is named, found and checked from headers alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from tdmoe.checkpoint.encodings import FP8, MX_GROUP, MXFP4, PLAIN, SCALES, BlockFP8, Encoding, Plain
from tdmoe.checkpoint.layout import METHOD
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.checkpoint.safetensors_header import TensorEntry
from tdmoe.problems import InputError
from tdmoe.stacks.architecture import EXPERTS, Architecture, config_error, language_config
from tdmoe.stacks.families import LAYER_PREFIXES, PROJECTIONS, Layout, Source
from tdmoe.stacks.stack import WeightStack, parts

SAME_MODEL = "check that config.json and the weights are of the same model"
PACKED = {  # endings of weights in encodings that are not read, for the refusal
    ".weight_packed": "packed integers (compressed-tensors)",
    ".qweight": "packed integers (GPTQ or AWQ)",
    "_packed": "packed integers",
}


def open_stack(checkpoint: Checkpoint, arch: Architecture, layer: int, projection: str) -> WeightStack:
    """Find and check every tensor of a stack from headers alone; InputError names the tensor that is wrong."""
    prefix, layout = _layout(checkpoint, arch, layer)
    source, shape = layout[projection], arch.shape(projection)
    entries = _entries(checkpoint, arch, prefix + source.template, source)
    encoding, expected = _encoding(entries[0], source, arch), disk_shape(source, shape)
    for entry in entries:
        if entry.shape != expected:
            raise InputError(
                entry.name,
                why=(
                    f"shape is {list(entry.shape)}, but config.json implies {list(expected)} (experts "
                    f"{arch.experts}, hidden_size {arch.hidden}, expert width {arch.width})"
                ),
            )
        if entry.dtype != entries[0].dtype:
            raise InputError(
                entry.name,
                why=f"stored as {entry.dtype}, but {entries[0].name} as {entries[0].dtype}",
                remedy="the experts of one layer must share a dtype",
            )
    scales: tuple[TensorEntry, ...] = ()
    if not isinstance(encoding, Plain):
        _refuse_other_scales(checkpoint, entries[0].name, prefix + source.scales)
        scales = _entries(checkpoint, arch, prefix + source.scales, source)
        _check_scales(scales, encoding, source, shape)
    bias = _bias(checkpoint, prefix, source, shape)
    return WeightStack(checkpoint, layer, projection, source, entries, scales, bias, shape, encoding)


def check_layers(checkpoint: Checkpoint, arch: Architecture) -> None:
    """Hold the layers and expert counts of config.json against the tensor names; InputError where they disagree."""
    found: dict[int, set[int]] = {}
    for layer, expert in _numbered(checkpoint, arch):
        found.setdefault(layer, set()).add(expert)
    for layer, experts in sorted(found.items()):
        if layer >= arch.depth + arch.extra_layers:
            raise config_error(f"num_hidden_layers is {arch.depth}, but layer {layer} holds experts too", SAME_MODEL)
        if layer < arch.depth and layer not in arch.layers:
            raise config_error(f"layer {layer} should be dense, but the checkpoint holds experts for it", SAME_MODEL)
        if (most := max(experts)) >= arch.experts:
            raise config_error(f"{arch.experts} experts, but layer {layer} holds expert {most} too", SAME_MODEL)
    for layer in arch.layers:
        if layer not in found:
            _layout(checkpoint, arch, layer)  # raises, naming what was looked for


def check_stacks(checkpoint: Checkpoint, arch: Architecture) -> list[WeightStack]:
    """`check_layers`, and every stack of the model opened; InputError names the tensor that is wrong."""
    check_layers(checkpoint, arch)
    return [open_stack(checkpoint, arch, layer, p) for p in PROJECTIONS for layer in arch.layers]


def experts_module(checkpoint: Checkpoint, arch: Architecture, layer: int) -> str:
    """Name of the layer's experts module in transformers 5, which is where its fused layout keeps them."""
    prefix, _ = _layout(checkpoint, arch, layer)
    fused = next(s["gate"] for s in arch.family.layouts if s["gate"].template.endswith("experts.gate_up_proj"))
    return prefix + fused.template.removesuffix(".gate_up_proj")


def expert_tensors(checkpoint: Checkpoint, arch: Architecture, layer: int) -> set[str]:
    """Every weight and scale of the layer's experts, as named on disk; biases are not among them."""
    return {
        entry.name
        for projection in PROJECTIONS
        for stack in [open_stack(checkpoint, arch, layer, projection)]
        for entry in (*stack.entries, *stack.scale_entries)
    }


def disk_shape(source: Source, shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Shape of the tensor (of one expert's, for axes "OI") that holds a projection of `shape` (E, O, I)."""
    experts, outputs, inputs = shape
    outputs *= parts(source)
    if source.mxfp4:
        return experts, outputs, inputs // MX_GROUP, MX_GROUP // 2
    return {"OI": (outputs, inputs), "EOI": (experts, outputs, inputs), "EIO": (experts, inputs, outputs)}[source.axes]


def _entries(checkpoint: Checkpoint, arch: Architecture, template: str, source: Source) -> tuple[TensorEntry, ...]:
    experts = range(arch.experts if source.axes == "OI" else 1)  # a fused name has no {expert} to fill
    names = [template.format(expert=e) for e in experts]
    missing = [name for name in names if name not in checkpoint]
    if missing and 0 < len(missing) < len(names):
        field = next((name for name in EXPERTS if name in language_config(checkpoint.config)), "its number")
        found = f"{len(names) - len(missing)} of {len(names)} experts found, config.json says {field} {arch.experts}"
        raise checkpoint.refusal(
            f"tensor {missing[0]!r} is missing from the checkpoint: {found}",
            f"correct it if experts were pruned, otherwise {checkpoint.remedy()}",
        )
    return checkpoint.entries(names)


def _encoding(entry: TensorEntry, source: Source, arch: Architecture) -> Encoding:
    if source.mxfp4 and entry.dtype == "U8":
        return MXFP4()
    if not source.mxfp4 and entry.dtype in PLAIN:
        return Plain(PLAIN[entry.dtype])
    if not source.mxfp4 and entry.dtype in FP8:
        return BlockFP8(arch.scale_block)
    raise InputError(
        entry.name,
        why=f"stored as {entry.dtype}",
        remedy=f"readable are {', '.join(PLAIN)}, {', '.join(FP8)} with block scales, and MXFP4 blocks",
    )


def _refuse_other_scales(checkpoint: Checkpoint, weight: str, template: str) -> None:
    """FP8 with one scale a tensor or a channel (compressed-tensors, ModelOpt) names its scales differently."""
    if template.format(expert=0) not in checkpoint and f"{weight}_scale" in checkpoint:
        raise InputError(
            f"{weight}_scale",
            why=(
                "scales a tensor or a channel (compressed-tensors) are not readable, only scales a block "
                "(weight_scale_inv)"
            ),
            remedy="use a bf16 version",
        )


def _check_scales(
    scales: tuple[TensorEntry, ...], encoding: Encoding, source: Source, shape: tuple[int, int, int]
) -> None:
    expected: tuple[int, ...] = disk_shape(source, shape)
    if isinstance(encoding, BlockFP8):
        high, wide = encoding.block
        expected = (*expected[:-2], -(-expected[-2] // high), -(-expected[-1] // wide))
    else:
        expected = expected[:-1]
    for entry in scales:
        if entry.shape != expected:
            raise InputError(
                entry.name,
                why=f"shape is {list(entry.shape)}, expected {list(expected)}",
                remedy="only groups of the config's weight_block_size (FP8) or of 32 (MXFP4) are supported",
            )
        if entry.dtype not in SCALES or entry.dtype != scales[0].dtype:
            raise InputError(
                entry.name, why=f"stored as {entry.dtype}", remedy=f"scales must be all of one of {', '.join(SCALES)}"
            )


def _bias(checkpoint: Checkpoint, prefix: str, source: Source, shape: tuple[int, int, int]) -> TensorEntry | None:
    if source.bias is None:
        return None
    entry = checkpoint.entry(prefix + source.bias)
    expected = (shape[0], shape[1] * parts(source))
    if entry.shape != expected:
        raise InputError(entry.name, why=f"shape is {list(entry.shape)}, expected {list(expected)}")
    if entry.dtype not in PLAIN:
        raise InputError(entry.name, why=f"stored as {entry.dtype}", remedy=f"readable biases are {', '.join(PLAIN)}")
    return entry


def _numbered(checkpoint: Checkpoint, arch: Architecture) -> Iterator[tuple[int, int]]:
    """(layer, expert) of every expert weight by name; a fused tensor counts as its expert 0."""
    templates = {p + s.template for p in LAYER_PREFIXES for layout in arch.family.layouts for s in layout.values()}
    number = r"(\d{1,6})"
    patterns = (
        re.escape(t).replace(r"\{layer\}", number).replace(r"\{expert\}", number) + "$" for t in sorted(templates)
    )
    pattern = re.compile("|".join(patterns))
    for name in checkpoint.names():
        if match := pattern.match(name):
            numbers = [int(group) for group in match.groups() if group is not None]
            yield numbers[0], numbers[1] if len(numbers) > 1 else 0


def _layout(checkpoint: Checkpoint, arch: Architecture, layer: int) -> tuple[str, Layout]:
    """The layer's prefix and the family's layout that it uses: the first one any of whose tensors is there.

    Layouts that share their names differ in axes; then the shapes of all three projections decide together.
    """
    prefixes = [prefix.format(layer=layer) for prefix in LAYER_PREFIXES]
    found = [(p, layout) for p in prefixes for layout in arch.family.layouts if _present(checkpoint, arch, p, layout)]
    if not found:
        _refuse_layer(checkpoint, arch, layer, prefixes)
    for other in found[1:]:
        _refuse_two(checkpoint, arch, found[0], other)
    same_names = [(p, layout) for p, layout in found if p == found[0][0] and _names(layout) == _names(found[0][1])]
    if len(same_names) > 1:
        for candidate in same_names:
            if _fits(checkpoint, arch, *candidate):
                return candidate
    return found[0]


def _refuse_two(checkpoint: Checkpoint, arch: Architecture, *found: tuple[str, Layout]) -> None:
    """InputError where the same experts are there twice, under names of two layouts that have no tensor in common."""
    ours, theirs = ({prefix + source.template for source in layout.values()} for prefix, layout in found)
    first, second = _first(checkpoint, arch, ours - theirs), _first(checkpoint, arch, theirs - ours)
    if first is not None and second is not None:
        raise checkpoint.refusal(
            f"holds the experts of one layer twice, as {first!r} and as {second!r}", "remove one of the two"
        )


def _names(layout: Layout) -> list[str]:
    return [layout[p].template for p in PROJECTIONS]


def _present(checkpoint: Checkpoint, arch: Architecture, prefix: str, layout: Layout) -> bool:
    return _first(checkpoint, arch, {prefix + source.template for source in layout.values()}) is not None


def _first(checkpoint: Checkpoint, arch: Architecture, templates: Collection[str]) -> str | None:
    """The first of these tensors that is there."""
    for template in sorted(templates):
        for e in range(arch.experts if "{expert}" in template else 1):
            if (name := template.format(expert=e)) in checkpoint:
                return name
    return None


def _fits(checkpoint: Checkpoint, arch: Architecture, prefix: str, layout: Layout) -> bool:
    """Gate and up are square only if 2 width = hidden, down only if width = hidden: never both."""
    return all(
        (name := prefix + source.template) in checkpoint
        and checkpoint.entry(name).shape == disk_shape(source, arch.shape(projection))
        for projection, source in layout.items()
    )


def _refuse_layer(checkpoint: Checkpoint, arch: Architecture, layer: int, prefixes: list[str]) -> None:
    quantization = checkpoint.config.get("quantization_config")
    if isinstance(quantization, dict) and quantization.get("quant_method") == METHOD:
        raise checkpoint.refusal("is compressed already and holds factors", "give the original")
    for name in checkpoint.names():
        if any(name.startswith(prefix) for prefix in prefixes) and ".experts." in name:
            for ending, kind in PACKED.items():
                if name.endswith(ending):
                    raise InputError(
                        f"{name!r}",
                        why=f"experts stored as {kind} are not readable",
                        remedy="use a bf16 or FP8 version",
                    )
    looked_for = " or ".join(
        repr(prefixes[0] + layout["down"].template.format(expert=0)) for layout in arch.family.layouts
    )
    raise InputError(
        f"layer {layer}",
        why=f"no expert weights of {arch.family.name} in the checkpoint, looked for {looked_for}",
        remedy=checkpoint.remedy(),
    )
