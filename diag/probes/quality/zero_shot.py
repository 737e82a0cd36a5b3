"""Zero-shot accuracy by lm-eval (https://github.com/EleutherAI/lm-evaluation-harness), through its own Python API.

Prompts, choices, scoring and the metric `acc` are those of lm-eval's own task definitions: 0-shot, no chat template.
Its data comes from the hub, or, task by task, from files in a folder: TASK_test.jsonl.gz or TASK_val.jsonl.gz, a JSON
object a line with the columns of the published data set. Only the data is exchanged, so the result is that of
lm-eval's own command on the same rows. For every document 1 for a right answer and 0 for a wrong one is kept, which is
what differences between models are taken over.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diag.probes.quality.columns import METRIC
from tdmoe.checkpoint import json_text
from tdmoe.problems import InputError

BATCH = 8
ANSWER_SECONDS = 5.0  # that the hub has to answer at all
DEFAULT = ("arc_challenge", "hellaswag", "openbookqa", "piqa", "winogrande")

Row = dict[str, Any]


@dataclass(frozen=True)
class Local:
    """Files of a task in a folder: where lm-eval defines it, names of files, the first that is there is taken,
    columns that are read, and what brings a row into lm-eval's columns where they differ."""

    folder: str
    files: tuple[str, ...]
    columns: tuple[str, ...]
    adapt: Callable[[Row], Row] = lambda row: row


_ARC = ("question", "choices", "answerKey")
LOCAL: Mapping[str, Local] = {
    "arc_challenge": Local("arc", ("arc_challenge_test", "arc_challenge_val"), _ARC),
    "arc_easy": Local("arc", ("arc_easy_test", "arc_easy_val"), _ARC),
    "hellaswag": Local("hellaswag", ("hellaswag_val",), ("ctx_a", "ctx_b", "activity_label", "endings", "label")),
    "openbookqa": Local("openbookqa", ("openbookqa_test", "openbookqa_val"), ("question_stem", "choices", "answerKey")),
    "piqa": Local("piqa", ("piqa_val",), ("goal", "sol1", "sol2", "label")),
    "winogrande": Local("winogrande", ("winogrande_xl_val",), ("sentence", "option1", "option2", "answer")),
    "boolq": Local(
        "super_glue/boolq",
        ("boolq_val",),
        ("passage", "question", "answer"),
        lambda row: {**row, "label": int(row["answer"])},
    ),
    "copa": Local("super_glue/copa", ("copa_val",), ("premise", "question", "choice1", "choice2", "label")),
    "rte": Local("glue/rte", ("rte_val",), ("sentence1", "sentence2", "label")),
    "lambada_openai": Local(
        "lambada",
        ("lambada_openai_test",),
        ("context", "continuation"),
        lambda row: {"text": f"{row['context']} {row['continuation']}"},
    ),
}


@dataclass(frozen=True)
class Task:
    """A task with its data. `source` is a file's name or the hub; `identity` that of data and limit."""

    name: str
    source: str
    identity: str
    documents: int
    task: Any

    def stated(self) -> str:
        """The task in words, for a table."""
        return f"lm-eval {version('lm_eval')} {self.name}, 0-shot, {METRIC}, from {self.source}"


def check_installed() -> None:
    """InputError where the extra is missing."""
    try:
        import accelerate  # noqa: F401  lm-eval's own models need it
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise InputError(
            "tasks", why=f"needs lm-eval, which is not installed ({error})", remedy="pip install 'tdmoe-diag[eval]'"
        ) from error


def load_tasks(names: Sequence[str], folder: Path | None, limit: int | None) -> list[Task]:
    """Tasks ready to be run, the first `limit` documents of each; InputError where one is unknown or has no data."""
    if folder is None and names and (why := _unreachable()) is not None:
        _refuse_without_data(names[0], why)
    check_installed()
    with _quiet():
        return [_from_hub(name, limit) if folder is None else _from_folder(name, folder, limit) for name in names]


def check_known(names: Sequence[str]) -> None:
    """InputError where lm-eval has no such task; it is not asked of those that can be had from a folder."""
    if not (others := [name for name in names if name not in LOCAL]):
        return
    check_installed()
    from lm_eval.tasks import TaskManager

    known = set(TaskManager().all_subtasks)
    for name in others:
        if name not in known:
            raise InputError("tasks", name, "lm-eval has no such task", f"give names like {', '.join(DEFAULT)}")


class Evaluator:
    """lm-eval's wrapper of one loaded model, whose experts may be exchanged between runs."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        from lm_eval.models.huggingface import HFLM

        class Quiet(HFLM):  # type: ignore[misc]
            """A model of lm-eval without progress bars of its own."""

            def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
                return super().loglikelihood(requests, disable_tqdm=True)

        with _quiet():
            self._lm = Quiet(pretrained=model, tokenizer=tokenizer, batch_size=BATCH, trust_remote_code=False)

    def run(self, task: Task, limit: int | None) -> NDArray[np.float64]:
        """1 for every document answered rightly, 0 for the others, in the data's order."""
        import lm_eval

        with _quiet():
            found = lm_eval.evaluate(self._lm, {"tasks": {task.name: task.task}}, limit=limit, bootstrap_iters=0)
        samples = sorted(found["samples"][task.name], key=lambda sample: sample["doc_id"])
        return np.array([sample[METRIC] for sample in samples], dtype=np.float64)


def read_rows(path: Path, local: Local) -> list[Row]:
    """The rows of a file in lm-eval's columns; InputError names file, line and what is wrong."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = content.decode("utf-8").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError("task_data", why=f"{path.name} cannot be read ({error})", remedy="fetch it again") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json_text.parse(line.encode())
            missing = [column for column in local.columns if row.get(column) is None]
        except (ValueError, AttributeError) as error:
            raise InputError(
                "task_data", why=f"{path.name} line {number} is not a JSON object", remedy="fetch it again"
            ) from error
        if missing:
            raise InputError(
                "task_data",
                why=f"{path.name} line {number} has no {missing[0]!r}",
                remedy=f"needed are {', '.join(local.columns)}",
            )
        rows.append(local.adapt(row))
    if not rows:
        raise InputError("task_data", why=f"{path.name} is empty", remedy="give a file with a JSON object a line")
    return rows


def find_file(name: str, folder: Path) -> Path:
    """The file of a task in a folder; InputError where there is none."""
    local = LOCAL.get(name)
    if local is None:
        raise InputError("tasks", name, f"--task-data works for {', '.join(LOCAL)}", "leave it out for the hub's data")
    tried = [f"{stem}.{suffix}" for stem in local.files for suffix in ("jsonl.gz", "jsonl")]
    for file in tried:
        if (folder / file).is_file():
            return folder / file
    raise InputError("task_data", folder, f"has no file of {name}", f"looked for {', '.join(tried)}")


def _from_folder(name: str, folder: Path, limit: int | None) -> Task:
    import lm_eval.tasks
    from datasets import Dataset, DatasetDict

    path = find_file(name, folder)
    local = LOCAL[name]
    rows = read_rows(path, local)[:limit]
    definitions = Path(lm_eval.tasks.__file__).parent / local.folder
    manager = lm_eval.tasks.TaskManager(include_path=definitions, include_defaults=False)
    exchanged = {
        "custom_dataset": lambda **_: DatasetDict({"test": Dataset.from_list(rows)}),
        **{"training_split": None, "validation_split": None, "fewshot_split": None, "test_split": "test"},
    }
    task = manager.load([{"group": "local", "task": [{"task": name, **exchanged}]}])["tasks"][name]
    identity = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:12]
    return Task(name, path.name, identity, len(rows), task)


def _from_hub(name: str, limit: int | None) -> Task:
    import lm_eval.tasks

    check_known([name])
    try:
        with _offline(_unreachable()):
            task = lm_eval.tasks.TaskManager().load([name])["tasks"][name]
    except Exception as error:  # of the hub, the network or the data set's own loader
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise InputError(
            "tasks", name, f"its data cannot be had from the hub ({reason})", "give a folder of files with --task-data"
        ) from error
    documents = task.eval_docs[:limit] if limit else task.eval_docs
    fingerprint = getattr(task.eval_docs, "_fingerprint", "")
    size = min(len(task.eval_docs), limit or len(task.eval_docs))
    return Task(name, "the hub", f"{fingerprint} {size}", len(documents), task)


def _unreachable() -> str | None:
    """Why the hub cannot be asked, if it cannot."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=ANSWER_SECONDS)
    except Exception as error:  # of the network, or because it must not be used
        return (str(error) or type(error).__name__).strip().splitlines()[0][:120]
    return None


def _refuse_without_data(name: str, why: str) -> None:
    """InputError where there is no hub and nothing in its cache: lm-eval would look for a minute."""
    from huggingface_hub import constants

    datasets = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
    if name in LOCAL and not any((*Path(constants.HF_HUB_CACHE).glob("datasets--*"), *datasets.glob("*"))):
        raise InputError(
            "tasks",
            name,
            f"its data cannot be had from the hub ({why}), and none is cached",
            "give a folder of files with --task-data",
        )


@contextmanager
def _offline(why: str | None) -> Iterator[None]:
    """Keep datasets from asking a hub that does not answer, again and again: what is cached is all there is."""
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    try:
        if why is not None:
            constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the log and the bars of lm-eval and datasets: progress is told by whoever calls."""
    import datasets
    import lm_eval.api.task

    logger, bar = logging.getLogger("lm_eval"), lm_eval.api.task.tqdm
    level, shown = logger.level, datasets.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    lm_eval.api.task.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        logger.setLevel(level)
        lm_eval.api.task.tqdm = bar
        if not shown:
            datasets.enable_progress_bars()
