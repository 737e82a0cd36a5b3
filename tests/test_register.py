"""Methods and probes of one's own, registered in this process, go the way of those of the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from damage import Result
from tiny import read_tensors

from diag.compression.execution import make_factors
from diag.compression.factors import Source, recipes
from diag.declare import probe as probes
from diag.declare.setting import derived
from diag.jobs.session import Request, Session
from diag.models.open_model import OpenModel
from diag.runs.folder import Job
from tdmoe import methods
from tdmoe.forms import Factored, restore
from tdmoe.forms.tucker import TuckerWeights
from tdmoe.numerics.products import expert_blocks, mode_products
from tdmoe.problems import InputError
from tdmoe.stacks.blocks import BlockPlan, plan_blocks
from tdmoe.stacks.joint import reader


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a test registers outlives it."""
    monkeypatch.setattr(methods, "_REGISTERED", {})
    monkeypatch.setattr(probes, "_REGISTERED", {})


@dataclass(frozen=True)
class FirstOptions:
    """`inputs`: how many are kept."""

    inputs: int = 5


class First(methods.Method):
    """W^ = W on the first inputs, and 0 on the others: an error that anyone can work out."""

    NAME, DISPLAY, OPTIONS = "first", "First inputs", FirstOptions
    calls = 0

    def fixes_storage(self, options: FirstOptions) -> bool:
        return True

    def check(self, shape: tuple[int, int, int], options: FirstOptions, ratio: float) -> None:
        if not 0 < options.inputs < shape[2]:
            raise InputError(f"--method first: inputs is {options.inputs}; give 1 to {shape[2] - 1}")

    def compress(self, reader: Any, options: FirstOptions, *_: object, device: str) -> Factored:
        First.calls += 1
        first_IQ = torch.eye(reader.stack.shape[2], options.inputs)
        return TuckerWeights(mode_products(reader, None, None, first_IQ, device=device), input_IQ=first_IQ)


def test_a_method_of_ones_own_compresses_a_checkpoint(tool: Callable[..., Result], complete: Path) -> None:
    command = (
        "compress",
        "--model",
        complete,
        "--method",
        "first:inputs=4",
        "--to",
        "to",
        "--projections",
        "gate,down",
    )
    assert "first: is no method; give one of cast, d2_moe" in tool(*command, "--out", "run", "--quiet").err
    methods.register(First())
    result = tool(*command, "--tokens", 0, "--out", "run", "--quiet")
    assert result.code == 0, result.err
    rows = pandas.read_csv("run/tables/compression.csv").set_index(["layer", "projection"])
    assert set(rows.method) == {"first:inputs=4"} and set(rows.index) == {
        (x, p) for x in (1, 2) for p in ("gate", "down")
    }
    weights, stored = read_tensors(complete), read_tensors(Path("to"))
    for (layer, projection), row in rows.iterrows():  # type: ignore[misc]
        names = [n for n in weights if f"layers.{layer}.mlp.experts." in n and f".{projection}_proj" in n]
        W_EOI = torch.stack([weights[n] for n in names]).double()
        expected = float(W_EOI[..., 4:].norm() / W_EOI.norm())
        assert row.weight_error == pytest.approx(expected, rel=1e-4)
        factors = {
            n.rpartition(".")[2]: t for n, t in stored.items() if f"layers.{layer}.mlp.experts.{projection}." in n
        }
        found = restore({"kind": "tucker"}, factors).members(0, len(W_EOI)).double()
        torch.testing.assert_close(found[..., :4], W_EOI[..., :4], rtol=1e-2, atol=1e-6)
        assert not found[..., 4:].any()


def test_a_method_is_replaced_by_the_next_of_its_name() -> None:
    methods.register(First())
    later = First()
    methods.register(later)
    assert methods.parse("first:inputs=3") == (later, FirstOptions(3)) and methods.registered() == ("first",)
    with pytest.raises(InputError, match="method frist: is no method; give one of cast, .*, first$"):
        methods.parse("frist")


def subclass(**changed: Any) -> methods.Method:
    found: methods.Method = type("Changed", (First,), changed)()
    return found


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: First, "is no method; give an instance of a subclass"),
        (lambda: "first", "'first' is no method"),
        (lambda: subclass(NAME="tdmoe"), "NAME is 'tdmoe', which is a method of this package; give another"),
        (lambda: subclass(NAME="a:b"), "NAME is 'a:b'; give a lower-case word"),
        (lambda: subclass(NAME=None), "NAME is None; give a lower-case word"),
        (lambda: subclass(OPTIONS=object), "OPTIONS is <class 'object'>; give a dataclass"),
        (lambda: subclass(OPTIONS=FirstOptions()), "OPTIONS is FirstOptions.*; give a dataclass"),
    ],
)
def test_methods_that_cannot_be_registered(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        methods.register(make())
    assert methods.registered() == ()


@dataclass(frozen=True)
class Settings(probes.StackSettings):
    above: float = 0.0
    memory: int = derived(10**9, identity=False)


class Largest:
    """The largest weight of every expert."""

    NAME = "largest"
    VERSION = 1
    TABLES = {"largest": ("layer", "projection", "expert", "value", "status")}
    done: list[str] = []

    @staticmethod
    def plan(stack: Any, settings: Settings) -> BlockPlan:
        if settings.above < 0:
            raise InputError(f"above is {settings.above}; give at least 0")
        return plan_blocks(stack, settings.memory)

    @classmethod
    def run(cls, stack: Any, settings: Settings, **_: object) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
        labels = {"layer": stack.layer, "projection": stack.projection}
        cls.done.append(Job(cls.NAME, **labels).key)
        rows = []
        for start, W_BOI in expert_blocks(reader(stack, settings.memory)):
            for e, W_OI in enumerate(W_BOI, start):
                rows.append({**labels, "expert": e, "value": float(W_OI.abs().max()), "status": "ok"})
        return {"largest": rows}, {"values": torch.tensor([row["value"] for row in rows]).double().numpy()}


def measured(model: Path, **options: Any) -> list[str]:
    """Runs the probe; the jobs that were really done."""
    Largest.done = []
    request = Request("largest", str(model), Settings(), out=Path("run"), device="cpu")
    with Session(replace(request, **options)) as session:
        session.folder.open()
        session.execute()
    return Largest.done


def test_a_probe_of_ones_own_is_run_and_taken_up(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    probes.register(Largest)
    assert probes.registered() == ("largest",)
    assert measured(good, layers="1") == [f"largest-L001-{p}" for p in ("gate", "up", "down")]
    assert measured(good) == [f"largest-L002-{p}" for p in ("gate", "up", "down")]
    assert measured(good) == []
    assert len(measured(good, settings=Settings(above=1.0))) == 6
    weights = read_tensors(good)
    for row in pandas.read_csv("run/tables/largest.csv").itertuples():
        name = f"model.layers.{row.layer}.mlp.experts.{row.expert}.{row.projection}_proj.weight"
        assert row.value == float(weights[name].abs().max()) and row.status == "ok"
    with Session(Request("largest", str(good), Settings(above=1.0), out=Path("run"), device="cpu")) as session:
        session.folder.open()
        rows = [row["value"] for row in session.folder.rows("largest")]
        assert sum((list(session.folder.arrays(job)["values"]) for job in session.stacks), []) == rows

    class Changed(Largest):
        VERSION = 2

    probes.register(Changed)
    assert len(measured(good, settings=Settings(above=1.0), layers="2")) == 3
    with pytest.raises(InputError, match="above is -1.0; give at least 0"):
        measured(good, settings=Settings(above=-1.0))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"NAME": "spectra"}, "NAME is 'spectra', which is a probe of this package"),
        ({"NAME": "../up"}, "NAME is '../up'; a lower-case word"),
        ({"TABLES": {"../up": ("status",)}}, "TABLES has '../up'; a lower-case word"),
        ({"TABLES": {"own": ("layer",)}}, "table own of largest has no column status"),
    ],
)
def test_probes_that_cannot_be_registered(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        probes.register(type("Changed", (Largest,), changed))  # type: ignore[arg-type]
    assert probes.registered() == ()


def test_a_probe_that_lacks_something_is_told_what() -> None:
    with pytest.raises(InputError, match="the probe has no VERSION; it needs NAME, VERSION, TABLES, plan"):
        probes.register(type("Half", (), {"NAME": "half"}))  # type: ignore[arg-type]


def test_workers_of_ray_know_nothing_of_it(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    probes.register(Largest)
    with pytest.raises(InputError, match="engine ray: the probe largest was registered in this process"):
        Session(Request("largest", str(good), Settings(), engine="ray"))


def test_workers_of_ray_know_nothing_of_a_method(tool: Callable[..., Result], complete: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    methods.register(First())
    result = tool("compress", "--model", complete, "--method", "first", "--to", "to", "--tokens", 0, "--engine", "ray")
    assert result.code == 2 and "--engine ray: the method first was registered in this process" in result.err
    assert not Path("to").exists()


def test_what_another_version_of_a_method_made_is_not_used(tool: Callable[..., Result], complete: Path) -> None:
    def made(version: str | int | None) -> int:
        method = First()
        method.VERSION = version  # type: ignore[misc]
        methods.register(method)
        before = First.calls
        with OpenModel(str(complete), "cpu") as opened:
            source = Source(opened, str(complete), [1, 2], "gate", None)
            make_factors(recipes(("first:inputs=4",), (0.4,)), source, quiet=True)
        return First.calls - before

    assert [made(version) for version in (None, None, 1, 1, "b", 1)] == [2, 0, 2, 0, 2, 0]
    command = ("compress", "--model", complete, "--method", "first:inputs=4", "--to", "to", "--tokens", 0, "--quiet")
    assert tool(*command).code == 0
    made(3)
    assert "made from other weights or with other settings" in tool(*command).err
    assert tool(*command, "--fresh").code == 0


def test_a_version_is_text_or_a_number() -> None:
    method = First()
    method.VERSION = [1]  # type: ignore
    with pytest.raises(InputError, match=r"register: VERSION is \[1\]; give a text, a whole number"):
        methods.register(method)
