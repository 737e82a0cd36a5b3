"""The engine `ray`: the same jobs on the CPUs and GPUs of one or several machines.

Workers get a Task, open the checkpoint themselves and send back rows and spectra, which are small; only this process
writes the run folder. A cluster is taken from RAY_ADDRESS, otherwise one is started here and stopped at the end; it
asks for a token that only its own processes know.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from diag.declare import probe as probes
from diag.jobs.work import Failed, Result, Task, failure, perform
from diag.models.device import gpu_index
from diag.models.model import Model
from diag.runs.manifest import package_versions
from tdmoe import methods
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.numerics.threads import WAITING
from tdmoe.problems import InputError
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.joint import open_named

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if not os.environ.get("RAY_ADDRESS"):
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a job without a GPU keeps what it sees; no warning
try:
    import ray
    from ray import exceptions
except ImportError as missing:
    raise InputError("engine", "ray", "Ray is not installed", "run pip install 'tdmoe-diag[ray]'") from missing

THREADS = 4  # of a job on CPUs: eigensolves gain little from more, and jobs run beside each other
WORKER_BYTES = 700_000_000  # a Python process with torch, before it does anything
RESULT_BYTES = 256 << 20  # of the object store: spectra of a thousand jobs
ATTEMPTS = 4
PASSED_ON = ("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", *WAITING)  # HF_TOKEN is every machine's own
CONNECT_SECONDS = 10

Resources = Mapping[str, float]


class RayEngine:
    """Connects to RAY_ADDRESS at once, since devices depend on it; a cluster of its own is started by `run`."""

    def __init__(self) -> None:
        self._address = os.environ.get("RAY_ADDRESS")
        if self._address:
            _connect(self._address)

    def device(self, text: str) -> str:
        """auto, cpu or cuda; Ray gives every job a GPU of its own."""
        gpus = [node for node in self._nodes() if node.get("GPU")]
        if text == "auto":
            return "cuda" if gpus else "cpu"
        if gpu_index(text) is None:
            return text
        if text != "cuda":
            raise InputError("device", text, "with --engine ray every job is given a GPU of its own", "use cuda")
        if not gpus:
            raise InputError("device", "cuda", "no machine of the Ray cluster has a GPU", "use --device cpu")
        return text

    def threads(self, device: str) -> int:
        """OMP_NUM_THREADS where it is set; otherwise 4, or with GPUs a machine's CPUs shared among them."""
        if (asked := os.environ.get("OMP_NUM_THREADS", "")).isdecimal() and int(asked):
            return int(asked)
        if device == "cpu":
            return int(max(1, min(THREADS, max(node.get("CPU", 1) for node in self._nodes()))))
        return int(max(1, min(node.get("CPU", 1) // node["GPU"] for node in self._nodes() if node.get("GPU"))))

    def check(self, tasks: Sequence[Task]) -> None:
        """Ray would wait without a word for a machine that can take such a job."""
        nodes = self._nodes()
        for task in tasks:
            _check_known(task)
            needs = _needs(task, self.threads(task.device))
            if not any(all(node.get(name, 0) >= count for name, count in needs.items()) for node in nodes):
                raise InputError(
                    "engine",
                    "ray",
                    f"{task.job.key} needs {_amounts(needs)}, no machine of the cluster has that "
                    f"({'; '.join(map(_amounts, nodes))})",
                    "lower --memory or OMP_NUM_THREADS, or add a machine",
                )

    def run(
        self,
        tasks: Sequence[Task],
        checkpoint: Checkpoint,
        on_read: Callable[[int], None],
        on_note: Callable[[str], None],
    ) -> Iterator[Result]:
        if not tasks:
            return
        threads = self.threads(tasks[0].device)
        folder = None if self._address else tempfile.mkdtemp(prefix="ray-")
        try:
            if folder is not None:
                _start(folder)
            for task, result in _results(tasks, threads, on_note):
                on_read(task.read_bytes)
                yield result
        finally:
            ray.shutdown()  # disconnects, which ends what still runs; a cluster of our own ends with it
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _nodes(self) -> list[Resources]:
        if self._address:
            return [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return [{"CPU": _cpus(), "GPU": torch.cuda.device_count(), "memory": _memory()}]


def _needs(task: Task, threads: int) -> Resources:
    return {"CPU": threads, "GPU": int(task.device == "cuda"), "memory": task.peak_bytes + WORKER_BYTES}


def _check_known(task: Task) -> None:
    """InputError where a job is about what only this process knows."""
    method, _, _ = getattr(task.settings, "method", "").partition(":")
    for kind, name, here in (("probe", task.job.probe, probes.registered()), ("method", method, methods.registered())):
        if name in here:
            raise InputError(
                "engine",
                "ray",
                f"the {kind} {name} was registered in this process, workers do not know it",
                "use --engine inline",
            )


def _results(tasks: Sequence[Task], threads: int, on_note: Callable[[str], None]) -> Iterator[tuple[Task, Result]]:
    """Submit all tasks; one whose worker is lost, for whatever reason, is submitted again a few times."""
    work = ray.remote(max_retries=0)(_work)  # Ray's own retries are silent, and without limit where memory ran out
    passed = {name: value for name in PASSED_ON if (value := os.environ.get(name)) is not None}
    environment = {"env_vars": {**passed, "OMP_NUM_THREADS": str(threads)}}  # BLAS reads it when a worker starts

    def submit(task: Task) -> Any:
        needs = _needs(task, threads)
        options = {"num_cpus": needs["CPU"], "num_gpus": needs["GPU"], "memory": needs["memory"]}
        return work.options(**options, name=task.job.key, runtime_env=environment).remote(task, threads)

    running = {submit(task): (task, 1) for task in tasks}
    while running:
        (ready, *_), _ = ray.wait(list(running), num_returns=1)
        task, attempt = running.pop(ready)
        try:
            yield task, ray.get(ready)
        except exceptions.RayTaskError as error:  # before the job began: our package is missing or another version
            reason = f"its worker could not start it ({type(error.cause).__name__}: {_first_line(error.cause)})"
            yield task, Failed(task.job, reason, str(error))
        except exceptions.RayError as error:
            reason = f"its worker was lost ({_first_line(error)})"
            if attempt == ATTEMPTS:
                yield task, Failed(task.job, f"{reason}, {attempt} times in all", str(error))
            else:
                on_note(f"{task.job.key}: {reason}; tried again")
                running[submit(task)] = (task, attempt + 1)


def _work(task: Task, threads: int) -> Result:
    """Do the work in a worker."""
    torch.set_num_threads(threads)
    try:
        checkpoint = _opened(task.model)
        _check_same(task, checkpoint)
    except (InputError, OSError) as error:
        return failure(task.job, InputError(f"on {socket.gethostname()}: {error}"))
    return perform(task, checkpoint)


def _check_same(task: Task, checkpoint: Checkpoint) -> None:
    """Weights and packages must be those that the run was planned with; InputError names what differs."""
    here = package_versions()
    if other := [f"{name} {here.get(name)} (not {v})" for name, v in task.versions.items() if here.get(name) != v]:
        raise InputError(f"has {', '.join(other)}; install the same versions on every machine of the cluster")
    stack = open_named(checkpoint, architecture(checkpoint.config), task.job.layer, task.job.projection)
    if checkpoint.weights_fingerprint(stack.all_entries) != task.weights:
        raise InputError(
            f"the weights of {task.job.key} are not those that the run was planned on; every machine of the cluster "
            "needs the same files at the same path, copied with their times (cp -p, rsync -a)"
        )


@cache
def _opened(model: Model) -> Checkpoint:
    """One open checkpoint a worker process."""
    return Checkpoint(model.files())


def _connect(address: str) -> None:
    try:
        if where := re.fullmatch(r"(?:ray://)?(.+):(\d+)", address):
            socket.create_connection((where[1], int(where[2])), CONNECT_SECONDS).close()  # Ray itself tries for minutes
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"RAY_ADDRESS={address}: cannot connect ({_first_line(error)}); check that the cluster runs with this "
            "version of Ray and Python, that RAY_AUTH_MODE and RAY_AUTH_TOKEN are those it was started with, or unset "
            "RAY_ADDRESS to start one here"
        ) from error


def _start(folder: str) -> None:
    ray.init(
        address="local",
        num_cpus=_cpus(),
        _memory=_memory(),
        object_store_memory=RESULT_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=folder,
    )


def _cpus() -> int:
    """CPUs of this process: its affinity, and the quota of its container."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _cgroup("cpu.max").partition(" ")
    return max(1, min(cpus, int(quota) // int(period))) if quota.isdecimal() and period.isdecimal() else cpus


def _memory() -> int:
    """Bytes that jobs may take: what this machine or its container has, less an eighth."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _cgroup("memory.max")
    return min(memory, int(limit) if limit.isdecimal() else memory) // 8 * 7


def _cgroup(name: str) -> str:
    """A limit of the container (cgroup v2), empty where there is none."""
    try:
        return Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _amounts(amounts: Resources) -> str:
    gpus = f"{amounts['GPU']:.0f} GPU, " if amounts.get("GPU") else ""
    return f"{amounts.get('CPU', 0):.0f} CPU, {gpus}{amounts.get('memory', 0) / 1e9:.1f} GB"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
