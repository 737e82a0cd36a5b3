"""Zero-shot accuracy is lm-eval's own: its evaluator on the same rows, reached the ordinary way, gives the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import single_thread

from diag.models.model import resolve
from diag.probes.quality import zero_shot
from diag.statistics.evaluation import mean
from tdmoe.problems import InputError

DATA = Path(__file__).parent / "data" / "tasks"


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """No network, and a cache of data sets of its own."""
    import datasets
    import huggingface_hub

    patch = pytest.MonkeyPatch()
    cache = str(tmp_path_factory.mktemp("datasets"))
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with single_thread():
        yield
    patch.undo()


@pytest.fixture(scope="module")
def evaluator(offline: None) -> zero_shot.Evaluator:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve("mini").folder
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return zero_shot.Evaluator(model, AutoTokenizer.from_pretrained(folder))


@pytest.fixture(scope="module")
def by_lm_eval(offline: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """lm-eval as its command runs it: the model by its folder, a YAML file a task that points at the data."""
    import lm_eval

    folder = tmp_path_factory.mktemp("yaml")
    definitions = Path(lm_eval.__file__).parent / "tasks"
    for task, (yaml, split) in {
        "arc_challenge": ("arc/arc_challenge.yaml", "test"),
        "hellaswag": ("hellaswag/hellaswag.yaml", "validation"),
        "openbookqa": ("openbookqa/openbookqa.yaml", "test"),
        "piqa": ("piqa/piqa.yaml", "validation"),
        "winogrande": ("winogrande/default.yaml", "validation"),
    }.items():
        splits = {"training_split": None, "validation_split": None, "test_split": None, f"{split}_split": split}
        data = {split: str(zero_shot.find_file(task, DATA))}
        about = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": data}, **splits}
        text = {"include": str(definitions / yaml), "task": f"file_{task}", **about}
        (folder / f"{task}.yaml").write_text(json.dumps(text))  # JSON is YAML
    return lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(resolve("mini").folder), "dtype": "float32"},
        tasks=[f"file_{task}" for task in zero_shot.DEFAULT],
        task_manager=lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False),
        num_fewshot=0,
        batch_size=8,
        device="cpu",
    )


@pytest.mark.parametrize("name", zero_shot.DEFAULT)
def test_accuracy_is_that_of_lm_evals_own_evaluator(
    evaluator: zero_shot.Evaluator, by_lm_eval: dict[str, Any], name: str
) -> None:
    (task,) = zero_shot.load_tasks([name], DATA, None)
    found = evaluator.run(task, None)
    samples = sorted(by_lm_eval["samples"][f"file_{name}"], key=lambda sample: sample["doc_id"])
    assert found.tolist() == [sample["acc"] for sample in samples]
    theirs = by_lm_eval["results"][f"file_{name}"]
    assert mean(found).value == pytest.approx(theirs["acc,none"], abs=1e-12)
    assert mean(found).stderr == pytest.approx(theirs["acc_stderr,none"], abs=1e-12)
    assert task.documents == len(found) == 24
    assert "0-shot, acc" in task.stated() and f"from {zero_shot.find_file(name, DATA).name}" in task.stated()


def test_the_first_documents_alone(evaluator: zero_shot.Evaluator) -> None:
    (whole,), (some,) = (zero_shot.load_tasks(["piqa"], DATA, limit) for limit in (None, 10))
    assert evaluator.run(some, 10).tolist() == evaluator.run(whole, None).tolist()[:10]
    assert some.documents == 10 and some.identity != whole.identity


def test_a_plain_file_and_columns_of_another_name(evaluator: zero_shot.Evaluator) -> None:
    """LAMBADA: right is who continues greedily with the last word; BoolQ: who finds the answer likelier."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve("mini").folder
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder).float().eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    lambada, boolq = zero_shot.load_tasks(["lambada_openai", "boolq"], DATA, None)

    def likelihood(context: str, answer: str) -> tuple[float, bool]:
        ids, start = tokenizer(context + answer)["input_ids"], len(tokenizer(context)["input_ids"])
        ids, start = ids[-512:], start - max(0, len(ids) - 512)
        with torch.no_grad():
            log_p_TV = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        ends = [(t, ids[t]) for t in range(start, len(ids))]
        return sum(float(log_p_TV[t - 1, v]) for t, v in ends), all(int(log_p_TV[t - 1].argmax()) == v for t, v in ends)

    rows = [json.loads(line) for line in (DATA / "lambada_openai_test.jsonl").read_text("utf-8").splitlines()]
    expected = [float(likelihood(row["context"], " " + row["continuation"])[1]) for row in rows]
    assert evaluator.run(lambada, None).tolist() == expected
    expected = []
    for line in (DATA / "boolq_val.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        prompt = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
        no, yes = likelihood(prompt, " no")[0], likelihood(prompt, " yes")[0]
        expected.append(float((yes > no) == row["answer"]))
    assert evaluator.run(boolq, None).tolist() == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nonsense", None, "tasks nonsense: --task-data works for arc_challenge, arc_easy"),
        ("piqa", None, "has no file of piqa; looked for piqa_val.jsonl.gz, piqa_val.jsonl"),
        ("piqa", b"", "piqa_val.jsonl is empty"),
        ("piqa", b"{}\n", "piqa_val.jsonl line 1 has no 'goal'; needed are goal, sol1, sol2, label"),
        ("piqa", b'{"goal": "a", "sol1": "b", "sol2": "c", "label": 0}\n[1]\n', "line 2 is not a JSON object"),
        ("piqa", b"\xff\xfe", "cannot be read"),
    ],
)
def test_data_that_is_not_there_or_damaged_is_named(tmp_path: Path, name: str, content: Any, message: str) -> None:
    if content is not None:
        (tmp_path / "piqa_val.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        zero_shot.load_tasks([name], tmp_path, None)


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    whole = (DATA / "piqa_val.jsonl.gz").read_bytes()
    (tmp_path / "piqa_val.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="piqa_val.jsonl.gz cannot be read"):
        zero_shot.load_tasks(["piqa"], tmp_path, None)


def test_without_the_extra_one_message_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(InputError, match=r"lm-eval.*pip install 'tdmoe-diag\[eval\]'"):
        zero_shot.load_tasks(["piqa"], DATA, None)
