"""Every family and disk layout against the model's own code: same experts, same axes, same spectra."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorly
import torch
from safetensors.torch import save_file
from tiny import INDEX, plain_checkpoint, read_json, read_tensors, single_thread, write_checkpoint
from torch import Tensor
from zoo import CHECKPOINTS, EXPERTS, FAMILIES, HIDDEN, LAYERS, build, experts_of, load, routed, save, transpose_experts

import tdmoe.numerics.gram
import tdmoe.numerics.spectrum
import tdmoe.stacks.blocks
from diag import pages
from diag.cli import app as cli
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.numerics.gram import MODES, mode_grams
from tdmoe.numerics.spectrum import mode_spectra, singular_values
from tdmoe.problems import InputError
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.blocks import BlockReader
from tdmoe.stacks.families import PROJECTIONS
from tdmoe.stacks.locate import check_layers, open_stack
from tdmoe.stacks.stack import WeightStack

SEED = 20
Saved = Callable[[str, str], Path]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """(family, layout) -> checkpoint folder, each model built once."""
    root, models = tmp_path_factory.mktemp("models"), {}

    def folder(name: str, layout: str) -> Path:
        path = root / layout / name
        if not path.exists():
            if name not in models:
                models[name] = build(FAMILIES[name], seed=SEED)
            save(models[name], path, fused=layout == "fused")
            if FAMILIES[name].input_major == layout == "original":
                transpose_experts(path)
        return path

    return folder


@pytest.fixture(scope="module")
def loaded(saved: Saved) -> Callable[[str, str], Any]:
    """(family, layout) -> the transformers model read back in float32."""
    models: dict[tuple[str, str], Any] = {}

    def model(name: str, layout: str) -> Any:
        if (name, layout) not in models:
            models[name, layout] = load(FAMILIES[name], saved(name, layout))
        return models[name, layout]

    return model


@pytest.fixture
def opened(saved: Saved) -> Iterator[Callable[[str, str], Checkpoint]]:
    """(family, layout) -> open Checkpoint, closed after the test."""
    checkpoints: list[Checkpoint] = []

    def open_(name: str, layout: str) -> Checkpoint:
        checkpoints.append(Checkpoint(saved(name, layout)))
        return checkpoints[-1]

    yield open_
    for checkpoint in checkpoints:
        checkpoint.close()


def stacks(checkpoint: Checkpoint) -> list[WeightStack]:
    arch = architecture(checkpoint.config)
    check_layers(checkpoint, arch)
    return [open_stack(checkpoint, arch, layer, p) for layer in arch.layers for p in PROJECTIONS]


def assemble(stack: WeightStack, block: int = 3) -> Tensor:
    """W_EOI from blocks; 7 experts in threes leave a short last block."""
    starts = range(0, stack.shape[0], block)
    return torch.cat([stack.weights(a, min(a + block, stack.shape[0])) for a in starts])


def bias_or_zero(stack: WeightStack) -> Tensor:
    bias = stack.bias()
    return torch.zeros(stack.shape[:2]) if bias is None else bias.float()


@pytest.mark.parametrize(("name", "layout"), CHECKPOINTS)
def test_stacks_reproduce_the_models_own_experts(
    name: str, layout: str, opened: Callable[..., Checkpoint], loaded: Callable[..., Any]
) -> None:
    """y = sum_k w_k (W_down act(W_gate x, W_up x)) from our stacks is what the layer's own module computes."""
    family, model = FAMILIES[name], loaded(name, layout)
    checkpoint = opened(name, layout)
    arch = architecture(checkpoint.config)
    generator = torch.Generator().manual_seed(SEED)
    tokens = 32
    for layer in family.moe_layers:
        opened_stacks = {p: open_stack(checkpoint, arch, layer, p) for p in PROJECTIONS}
        W = {p: assemble(s).float() for p, s in opened_stacks.items()}
        b = {p: bias_or_zero(s) for p, s in opened_stacks.items()}
        assert {p: tuple(w.shape) for p, w in W.items()} == {p: family.shape(p) for p in PROJECTIONS}
        x_TI = 4.0 * torch.randn(tokens, HIDDEN, generator=generator)  # large enough to reach the clamp of GPT-OSS
        index_TK = torch.stack([torch.randperm(EXPERTS, generator=generator)[:2] for _ in range(tokens)])
        weight_TK = torch.rand(tokens, 2, generator=generator)
        with torch.no_grad():
            expected = routed(experts_of(model)[layer], x_TI, index_TK, weight_TK)
        gate = torch.einsum("tkoi,ti->tko", W["gate"][index_TK], x_TI) + b["gate"][index_TK]
        up = torch.einsum("tkoi,ti->tko", W["up"][index_TK], x_TI) + b["up"][index_TK]
        hidden = family.activation(gate, up)
        y_TKO = torch.einsum("tkoi,tki->tko", W["down"][index_TK], hidden) + b["down"][index_TK]
        actual = torch.einsum("tk,tko->to", weight_TK, y_TKO)
        assert set(index_TK.flatten().tolist()) == set(range(EXPERTS)), "every expert is compared"
        if name.startswith("gpt_oss"):
            assert (gate > 7).any() and (up.abs() > 7).any() and all(values.any() for values in b.values())
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("name", "layout"), CHECKPOINTS)
def test_moe_layers_are_those_whose_mlp_has_experts(
    name: str, layout: str, opened: Callable[..., Checkpoint], loaded: Callable[..., Any]
) -> None:
    with_experts = sorted(experts_of(loaded(name, layout)))
    checkpoint = opened(name, layout)
    arch = architecture(checkpoint.config)
    check_layers(checkpoint, arch)
    assert list(arch.layers) == with_experts == list(FAMILIES[name].moe_layers)
    assert (arch.experts, arch.hidden, arch.width, arch.depth) == (EXPERTS, HIDDEN, FAMILIES[name].width, LAYERS)
    assert arch.dtype == "bfloat16"


@pytest.mark.parametrize(("name", "layout"), CHECKPOINTS)
def test_no_entry_is_a_shared_expert_and_a_layer_spans_shards(
    name: str, layout: str, opened: Callable[..., Checkpoint]
) -> None:
    checkpoint = opened(name, layout)
    if name in ("qwen2_moe", "deepseek_v3"):
        assert any("shared_expert" in n for n in checkpoint.names()), "the test model has a shared expert"
    per_layer: dict[int, set[Path]] = {}
    for stack in stacks(checkpoint):
        assert len(stack.entries) == FAMILIES[name].entries(layout)
        assert not any("shared" in entry.name for entry in stack.entries)
        assert stack.shape == FAMILIES[name].shape(stack.projection)
        per_layer.setdefault(stack.layer, set()).update(entry.file for entry in stack.entries)
    assert min(len(shards) for shards in per_layer.values()) > 1


@pytest.mark.parametrize(("name", "layout"), CHECKPOINTS)
@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_strips_hold_the_same_weights_as_blocks(
    name: str, layout: str, rows: int, opened: Callable[..., Checkpoint]
) -> None:
    """Strips run along the axis that is contiguous on disk: output rows, input rows for an input-major family."""
    for stack in stacks(opened(name, layout)):
        W_EOI = assemble(stack)
        W_by_rows = W_EOI if stack.row_mode == "output" else W_EOI.transpose(1, 2)
        assert stack.row_mode == ("input" if FAMILIES[name].input_major == layout else "output")
        strips = []
        for start in range(0, W_by_rows.shape[1], rows):
            stop = min(start + rows, W_by_rows.shape[1])
            strip = stack.empty(EXPERTS, stop - start)
            for expert in range(EXPERTS):
                stack.read(expert, start, stop, strip[expert])
            strips.append(stack.decode(strip, stack.read_scales(), 0, start))
        assert torch.equal(torch.cat(strips, dim=1), W_by_rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_plain_dtype_is_read_as_stored(dtype: torch.dtype, tmp_path: Path) -> None:
    model = build(FAMILIES["qwen3_moe"], dtype)
    expected = model.model.layers[0].mlp.experts.down_proj.detach()
    with Checkpoint(save(model, tmp_path, fused=False, shard_size=10**9)) as checkpoint:
        stack = open_stack(checkpoint, architecture(checkpoint.config), 0, "down")
        assert stack.encoding.natural == dtype
        assert torch.equal(assemble(stack), expected)


# Configs as found: the fields that matter of the hub's files, and what transformers 4 and 5 write.
HUB = {
    "Qwen3-30B-A3B": (
        {
            **{"model_type": "qwen3_moe", "decoder_sparse_step": 1, "hidden_size": 2048, "intermediate_size": 6144},
            **{"mlp_only_layers": [], "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8},
            **{"num_hidden_layers": 48, "torch_dtype": "bfloat16", "transformers_version": "4.51.0"},
        },
        ("Qwen3-MoE", 128, 2048, 768, tuple(range(48)), "bfloat16", 0),
    ),
    "Mixtral-8x7B-v0.1": (
        {
            **{"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
            **{"num_local_experts": 8, "num_experts_per_tok": 2, "torch_dtype": "bfloat16", "sliding_window": None},
        },
        ("Mixtral", 8, 4096, 14336, tuple(range(32)), "bfloat16", 0),
    ),
    "gpt-oss-20b": (
        {
            **{"model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 24},
            **{"num_local_experts": 32, "experts_per_token": 4, "num_experts_per_tok": 4, "swiglu_limit": 7.0},
            "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]},
        },
        ("GPT-OSS", 32, 2880, 2880, tuple(range(24)), None, 0),
    ),
    "DeepSeek-V3": (
        {
            **{"model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "ep_size": 1},
            **{"moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1, "moe_layer_freq": 1},
            **{"first_k_dense_replace": 3, "num_hidden_layers": 61, "num_nextn_predict_layers": 1},
            **{"torch_dtype": "bfloat16", "quantization_config": {"quant_method": "fp8", "fmt": "e4m3"}},
        },
        ("DeepSeek-V3", 256, 7168, 2048, tuple(range(3, 61)), "bfloat16", 1),
    ),
}


@pytest.mark.parametrize("name", HUB)
def test_configs_of_the_hub_are_understood(name: str) -> None:
    config, expected = HUB[name]
    arch = architecture(config)
    actual = (arch.family.name, arch.experts, arch.hidden, arch.width, arch.layers, arch.dtype, arch.extra_layers)
    assert actual == expected


BASE, _ = plain_checkpoint()


@pytest.mark.parametrize(
    "spelling",
    [
        {"num_experts": 3, "torch_dtype": "bfloat16"},
        {"num_local_experts": 3, "dtype": "bfloat16"},
        {"n_routed_experts": 3, "dtype": "bfloat16"},
        {"num_experts": 3, "num_local_experts": 3, "n_routed_experts": 3},
        {"num_local_experts": 3, "num_experts": None, "dtype": None, "torch_dtype": "bfloat16"},
        {"num_experts": 3, "dtype": "bfloat16", "torch_dtype": "bfloat16"},
    ],
    ids=str,
)
def test_spellings_of_transformers_4_and_5_mean_the_same(spelling: dict[str, Any]) -> None:
    plain = {k: v for k, v in BASE.items() if k not in ("num_experts", "torch_dtype")}
    assert architecture({**plain, **spelling}).experts == 3


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"num_local_experts": 8}, r"config\.json: num_experts = 3 and num_local_experts = 8 disagree; keep one"),
        ({"n_routed_experts": 2}, r"config\.json: num_experts = 3 and n_routed_experts = 2 disagree; keep one"),
        ({"dtype": "float32"}, r"config\.json: dtype = 'float32' and torch_dtype = 'bfloat16' disagree; keep one"),
    ],
    ids=str,
)
def test_disagreeing_spellings_are_refused(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        architecture({**BASE, **extra})


@pytest.mark.parametrize(
    ("model_type", "fields", "layers"),
    [
        ("qwen3_moe", {}, (0, 1, 2, 3, 4, 5)),
        ("qwen3_moe", {"mlp_only_layers": None}, (0, 1, 2, 3, 4, 5)),
        ("qwen3_moe", {"mlp_only_layers": [0, 5]}, (1, 2, 3, 4)),
        ("qwen3_moe", {"decoder_sparse_step": 2}, (1, 3, 5)),
        ("qwen3_moe", {"decoder_sparse_step": 2, "mlp_only_layers": [3]}, (1, 5)),
        ("deepseek_v3", {"first_k_dense_replace": 3}, (3, 4, 5)),
        ("deepseek_v3", {"first_k_dense_replace": 1, "moe_layer_freq": 2}, (2, 4)),
    ],
)
def test_dense_layers_follow_the_rules_of_the_family(
    model_type: str, fields: dict[str, Any], layers: tuple[int, ...]
) -> None:
    config = {k: v for k, v in BASE.items() if k not in ("mlp_only_layers", "decoder_sparse_step")}
    config |= {"model_type": model_type, "num_hidden_layers": 6, **fields}
    assert architecture(config).layers == layers


def test_multi_token_prediction_layers_are_left_out(tmp_path: Path) -> None:
    """DeepSeek stores them behind the others, with experts of their own."""
    config, tensors = plain_checkpoint(moe_layers=(1, 2, 3))
    config |= {"model_type": "deepseek_v3", "num_hidden_layers": 3, "first_k_dense_replace": 1}
    config |= {"num_nextn_predict_layers": 1, "mlp_only_layers": None}
    with Checkpoint(write_checkpoint(tmp_path, config, tensors)) as checkpoint:
        assert {stack.layer for stack in stacks(checkpoint)} == {1, 2}


# Spectra


def unfolded_svd(W_EOI: Tensor) -> dict[str, np.ndarray]:
    """An independent way: tensorly unfolds, LAPACK's SVD in float64, no Gram matrix."""
    full = W_EOI.double().numpy()
    return {
        mode: torch.linalg.svdvals(torch.from_numpy(np.ascontiguousarray(tensorly.unfold(full, axis)))).numpy()
        for axis, mode in enumerate(MODES)
    }


def one_expert(stack: WeightStack) -> int:
    return stack.stored_bytes(1, stack.stored_shape[1])


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products in float32, and pieces so small that a pico stack has many blocks, strips and panels."""
    monkeypatch.setattr(tdmoe.numerics.spectrum, "BLOCK_WEIGHTS", 0)
    monkeypatch.setattr(tdmoe.stacks.blocks, "BLOCK_WEIGHTS", 1100)
    monkeypatch.setattr(tdmoe.stacks.blocks, "STRIP_WEIGHTS", 50)
    monkeypatch.setattr(tdmoe.numerics.gram, "STRIP_WEIGHTS", 50)
    monkeypatch.setattr(tdmoe.numerics.gram, "PANEL", 5)


@pytest.mark.parametrize(("name", "layout"), CHECKPOINTS)
@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
def test_spectra_are_the_singular_values_of_the_unfoldings(
    name: str, layout: str, resident: bool, opened: Callable[..., Checkpoint]
) -> None:
    for stack in stacks(opened(name, layout)):
        reader = BlockReader(stack, stack.nbytes if resident else one_expert(stack) + 1)
        assert reader.plan.resident == resident
        expected, found = unfolded_svd(assemble(stack)), mode_spectra(reader).modes
        assert list(found) == list(MODES)
        for mode in MODES:
            sigma = expected[mode]
            assert found[mode].precision == "float64"
            np.testing.assert_allclose(found[mode].sigma, sigma, rtol=0, atol=1e-6 * sigma[0], err_msg=mode)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(("name", "layout"), CHECKPOINTS)
@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
def test_float32_products_keep_the_same_promise(
    name: str, layout: str, resident: bool, opened: Callable[..., Checkpoint]
) -> None:
    precisions = set()
    for stack in stacks(opened(name, layout)):
        memory = stack.nbytes if resident else one_expert(stack) + 1
        reader = BlockReader(stack, memory)
        assert reader.plan.block_experts < EXPERTS, "the test wants several blocks"
        expected, found = unfolded_svd(assemble(stack)), mode_spectra(reader).modes
        raw = mode_grams(BlockReader(stack, memory), dtype=torch.float32)
        for mode in MODES:
            sigma = expected[mode]
            precisions.add(found[mode].precision)
            np.testing.assert_allclose(found[mode].sigma, sigma, rtol=0, atol=1e-6 * sigma[0], err_msg=mode)
            unsaved = singular_values(raw[mode].gram, int(np.prod(stack.shape)))
            np.testing.assert_allclose(unsaved, sigma, rtol=0, atol=1e-6 * sigma[0], err_msg=f"{mode}, float32 only")
            assert 0 < raw[mode].product_error < 1e-6 * sigma[0] ** 2
    assert "float32" in precisions, "every mode fell back to float64, nothing was tested"


@pytest.mark.parametrize("shape", [(3, 2, 24), (3, 24, 2), (2, 5, 5), (9, 2, 2)], ids=str)
def test_a_mode_larger_than_the_product_of_the_others(shape: tuple[int, int, int], tmp_path: Path) -> None:
    """As many singular values as the unfolding has, not as many as the mode is long."""
    experts, width, hidden = shape
    config, tensors = plain_checkpoint(experts, hidden, width)
    with Checkpoint(write_checkpoint(tmp_path, config, tensors)) as checkpoint:
        for stack in stacks(checkpoint):
            found = mode_spectra(BlockReader(stack, stack.nbytes)).modes
            for mode, sigma in unfolded_svd(assemble(stack)).items():
                assert found[mode].sigma.shape == sigma.shape
                np.testing.assert_allclose(found[mode].sigma, sigma, rtol=0, atol=1e-6 * sigma[0], err_msg=mode)


def permuted(folder: Path, target: Path) -> Path:
    """The same checkpoint with the experts of every layer in another order."""
    order = torch.randperm(EXPERTS, generator=torch.Generator().manual_seed(5)).tolist()
    assert order != sorted(order)
    tensors = {}
    for name, tensor in read_tensors(folder).items():
        before, found, after = name.partition("experts.")
        number, _, rest = after.partition(".")
        if found and number.isdecimal():
            name = f"{before}experts.{order.index(int(number))}.{rest}"
        elif tensor.ndim == 3 and len(tensor) == EXPERTS:
            tensor = tensor[order]
        tensors[name] = tensor.contiguous()
    target.mkdir()
    shutil.copy(folder / "config.json", target)
    save_file(tensors, target / "model.safetensors")
    return target


@pytest.mark.parametrize(("name", "layout"), CHECKPOINTS)
def test_the_order_of_the_experts_does_not_matter(name: str, layout: str, saved: Saved, tmp_path: Path) -> None:
    other = permuted(saved(name, layout), tmp_path / "permuted")
    with Checkpoint(saved(name, layout)) as a, Checkpoint(other) as b:
        for first, second in zip(stacks(a), stacks(b), strict=True):
            assert not torch.equal(assemble(first), assemble(second))
            one, two = (mode_spectra(BlockReader(s, s.nbytes)).modes for s in (first, second))
            for mode in MODES:
                np.testing.assert_allclose(one[mode].sigma, two[mode].sigma, rtol=1e-12, err_msg=mode)


# Through the command


def run_spectra(monkeypatch: pytest.MonkeyPatch, model: Path, out: Path, *options: str) -> bytes:
    command = ["tdmoe-diag", "spectra", "--model", str(model), "--out", str(out), "--device", "cpu", "--quiet"]
    monkeypatch.setattr("sys.argv", [*command, *options])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    return (out / "tables" / "spectra.csv").read_bytes()


@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if len(f.layouts) > 1])
def test_both_layouts_give_the_same_table_byte_for_byte(
    name: str, saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (saved(name, "fused") / INDEX).is_file() and (saved(name, "original") / INDEX).is_file()
    first = run_spectra(monkeypatch, saved(name, "original"), tmp_path / "a")
    monkeypatch.setattr(pages, "figures_for", lambda run: [])  # the same rows, drawn again, would show nothing new
    second = run_spectra(monkeypatch, saved(name, "fused"), tmp_path / "b")
    assert first == second
    rows = first.decode().splitlines()[1:]
    jobs = [(layer, p, mode) for layer in FAMILIES[name].moe_layers for p in PROJECTIONS for mode in MODES]
    assert [tuple(row.split(",")[:3]) for row in rows] == [(str(layer), p, mode) for layer, p, mode in jobs]


@pytest.mark.parametrize("layout", ["original", "fused"])
def test_streaming_gives_the_same_exponents_as_memory(
    layout: str, saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Block boundaries differ, so the last digits may; nothing that is printed does."""
    folder = saved("qwen3_moe", layout)
    options = ("--layers", "0", "--projections", "gate")
    tables = [
        run_spectra(monkeypatch, folder, tmp_path / memory, "--memory", memory, *options).decode().splitlines()
        for memory in ("1GB", "961B")
    ]
    header, *resident = (line.split(",") for line in tables[0])
    for expected, found in zip(resident, (line.split(",") for line in tables[1][1:]), strict=True):
        for column, a, b in zip(header, expected, found, strict=True):
            if a != b:
                assert float(b) == pytest.approx(float(a), rel=1e-6), column


def test_the_original_files_keep_their_published_names(saved: Saved) -> None:
    """Guards the test models themselves: both layouts of transformers 5 are really what is compared."""
    for name, layout in CHECKPOINTS:
        names = read_json(saved(name, layout) / INDEX)["weight_map"]
        fused = any(n.endswith(("experts.gate_up_proj", "input_linear.weight")) for n in names)
        assert fused == (FAMILIES[name].entries(layout) == 1), (name, layout)
