"""--model from the hub, against a server on loopback: what is fetched, what breaks, what is said."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
from damage import FIRST, SECOND, THIRD, Result, refuses
from hub_server import Fault, Hub, serving
from tiny import INDEX, read_json, write_json

from diag.models.remote import pause

pytestmark = pytest.mark.usefixtures("one_thread")
REPO = "acme/Tiny-MoE"
SECRET = "hf_loopback"
_PACK = zlib.compressobj(wbits=31)
BOMB = b"".join([_PACK.compress(bytes(10_000_000)) for _ in range(30)]) + _PACK.flush()  # 300 kB, 300 MB unpacked


@pytest.fixture
def hub(model: Path, tool: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with one model in three shards; `tool` is asked for first because it switches the network off."""
    with serving() as server:
        server.publish(REPO, model)
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", server.endpoint)
        monkeypatch.setenv("HF_TOKEN", SECRET)
        server.slept = slept = []  # type: ignore[attr-defined]
        monkeypatch.setattr("diag.models.remote.pause", lambda *a: slept.append(pause(*a)) or 0.0)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", slept.append)
        monkeypatch.setattr(
            "diag.cli.probe_command.write_page", lambda folder, tables: folder.path / "report.html"
        )  # slow
        yield server


def cached(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "hub").glob("models--*/snapshots/*/*")}


def header_bytes(shard: Path) -> int:
    return int.from_bytes(shard.read_bytes()[:8], "little") + 8


def table(out: Path) -> bytes:
    return (out / "tables" / "spectra.csv").read_bytes()


@pytest.mark.parametrize("options", [(), ("--remote",)], ids=["fetched", "remote"])
def test_the_table_is_that_of_the_same_folder(
    hub: Hub, run: Callable[..., Result], model: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    folder = run("--model", model, "--out", tmp_path / "a")
    result = run("--model", REPO, "--out", tmp_path / "b", *options)
    assert folder.code == result.code == 0, result
    assert table(tmp_path / "a") == table(tmp_path / "b")
    assert "Tiny-MoE" in result.out


def test_only_the_shards_that_are_needed_are_fetched(hub: Hub, run: Callable[..., Result], tmp_path: Path) -> None:
    """The up projections of layer 2 all lie in the third shard."""
    result = run("--model", REPO, "--layers", "2", "--projections", "up", "--out", tmp_path / "o")
    assert result.code == 0, result
    assert cached(tmp_path) == {"config.json", INDEX, THIRD}
    assert set(hub.shards_sent()) == {THIRD}


def test_a_dry_run_downloads_no_shard_and_says_how_much_it_would(
    hub: Hub, run: Callable[..., Result], model: Path, tmp_path: Path
) -> None:
    result = run("--model", REPO, "--layers", "2", "--projections", "up", "--dry-run")
    assert result.code == 0, result
    size = (model / THIRD).stat().st_size
    assert re.search(rf"1 shard to download first, {size / 1000:.1f} kB", " ".join(result.out.split()))
    assert cached(tmp_path) == {"config.json", INDEX}
    assert hub.shards_sent() == {THIRD: header_bytes(model / THIRD)}


def test_remote_stores_nothing_and_reads_what_it_needs(
    hub: Hub, run: Callable[..., Result], model: Path, tmp_path: Path
) -> None:
    result = run("--model", REPO, "--layers", "2", "--projections", "up", "--remote", "--out", tmp_path / "o")
    assert result.code == 0, result
    assert not (tmp_path / "hub").exists() or not cached(tmp_path)
    whole = (model / THIRD).stat().st_size
    needed = header_bytes(model / THIRD) + 3 * 6 * 8 * 2  # three experts of 6 x 8 in bf16
    assert hub.shards_sent() == {THIRD: needed} and needed < whole


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: Hub, run: Callable[..., Result], tmp_path: Path) -> None:
    assert run("--model", REPO, "--remote", "--out", tmp_path / "o").code == 0
    for sent in hub.log:
        assert sent.authorization == (None if "/cdn/" in sent.request else f"Bearer {SECRET}")


def test_a_second_run_asks_for_no_shard(hub: Hub, run: Callable[..., Result], tmp_path: Path) -> None:
    assert run("--model", REPO, "--out", tmp_path / "o").code == 0
    hub.log.clear()
    result = run("--model", REPO, "--out", tmp_path / "o")
    assert result.code == 0 and "6 of 6 jobs are done already" in result.err
    assert not hub.shards_sent()


@pytest.mark.parametrize("options", [(), ("--remote",)], ids=["fetched", "remote"])
def test_dropped_connections_are_taken_up_where_they_broke(
    hub: Hub, run: Callable[..., Result], model: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    assert run("--model", model, "--out", tmp_path / "a").code == 0
    hub.faults = [Fault(r"GET /cdn/.*00002-of", body_bytes=100, times=2), Fault(r"GET /cdn/", body_bytes=0, times=2)]
    result = run("--model", REPO, "--out", tmp_path / "b", *options)
    assert result.code == 0, result
    assert table(tmp_path / "a") == table(tmp_path / "b")
    most = 2 * (model / SECOND).stat().st_size  # headers by range, then the rest: nothing is sent twice
    assert hub.shards_sent()[SECOND] < most
    assert hub.slept  # type: ignore[attr-defined]


def test_a_busy_hub_is_asked_again_when_it_says(hub: Hub, run: Callable[..., Result], tmp_path: Path) -> None:
    hub.faults = [
        Fault(r"GET /api", 503),
        Fault(r"GET /api", 429, {"Retry-After": "7"}),
        Fault(r"GET /cdn/", 502, times=2),
    ]
    assert run("--model", REPO, "--remote", "--out", tmp_path / "o").code == 0
    assert 7.0 in hub.slept  # type: ignore[attr-defined]


def test_signed_addresses_expire_under_many_threads(
    hub: Hub, run: Callable[..., Result], model: Path, tmp_path: Path
) -> None:
    assert run("--model", model, "--out", tmp_path / "a").code == 0
    hub.reads_a_signature = 3
    result = run("--model", REPO, "--remote", "--out", tmp_path / "b")
    assert result.code == 0, result
    assert table(tmp_path / "a") == table(tmp_path / "b")
    assert len(hub.signatures) > 6, "addresses had to be asked for again"
    assert sum(sent.status == 403 for sent in hub.log) > 3


def test_a_silent_connection_is_given_up_and_taken_up_again(
    hub: Hub, run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    hub.faults = [Fault("GET /cdn/", body_bytes=5, stall=60), Fault("GET /cdn/.*00003", body_bytes=5, stall=60)]
    started = time.monotonic()
    result = run("--model", REPO, "--layers", "2", "--projections", "up", "--remote", "--out", tmp_path / "o")
    assert result.code == 0, result
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET /cdn/", shift=7),
        Fault("GET /cdn/", headers={"Content-Range": "bytes 0-9/12"}),
        Fault("GET /cdn/", headers={"Content-Range": "none"}),
        Fault("GET /cdn/", headers={"Content-Encoding": "gzip"}),
        Fault("GET /cdn/", 200, body=bytes(4096)),  # what is no file of that size
        Fault("GET /cdn/", drip=0.05),
    ],
    ids=["shifted", "of another size", "without a range", "encoded", "another file", "a byte now and then"],
)
def test_a_range_that_is_not_the_asked_one_is_a_broken_transfer(
    hub: Hub, run: Callable[..., Result], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """Twice, and it is asked for again; for ever, and nothing of it is taken."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    asked = ("--layers", "2", "--projections", "up")
    assert run("--model", model, *asked, "--out", tmp_path / "a").code == 0
    hub.faults = [replace(fault, times=2)]
    assert run("--model", REPO, "--remote", *asked, "--out", tmp_path / "b").code == 0
    assert table(tmp_path / "a") == table(tmp_path / "b") and len(hub.slept) == 2  # type: ignore[attr-defined]
    hub.faults = [replace(fault, times=99)]
    said = rf"{THIRD}: the transfer failed \(.*\); check the network, the same command goes on"
    refuses(run("--model", REPO, "--remote", *asked, "--out", tmp_path / "out"), said, tmp_path / "out")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("/api/", 200, body=bytes(99), drip=0.02, times=99), "no answer from the hub .only [0-9]+ bytes in 0 s"),
        (Fault("/api/", 200, {"Content-Encoding": "gzip"}, body=BOMB, times=99),
         "answer of more than 100,000,000 bytes"),
        (Fault("GET .*/config.json", 200, {"Content-Encoding": "gzip"}, body=BOMB, times=99),
         "config.json: more comes than the [0-9]+ bytes that the hub lists; check HF_ENDPOINT"),
        (Fault("GET .*/config.json", body_bytes=3, stall=60, times=99),
         r"config.json: the transfer failed .*; check the network"),
        (Fault("GET .*/config.json", headers={"Content-Range": "bytes x-y/z"}, times=99),
         r"config.json: what \S+ answers is not a hub's \(.*; check HF_ENDPOINT"),
    ],
)  # fmt: skip
def test_an_answer_without_end_is_given_up(
    hub: Hub, run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, message: str
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.4)
    hub.faults = [fault]
    tracemalloc.start()
    refuses(run("--model", REPO, "--out", tmp_path / "out"), message, tmp_path / "out")
    assert tracemalloc.get_traced_memory()[1] < 400_000_000
    tracemalloc.stop()
    assert len(hub.log) < 20, "tries of huggingface_hub's own count"


def test_ctrl_c_does_not_wait_for_a_busy_hub(hub: Hub, model: Path, tmp_path: Path) -> None:
    """Every read of weights is told to come again in a minute."""
    code = (
        "import signal; from diag.cli.app import main; signal.signal(signal.SIGINT, signal.default_int_handler); main()"
    )
    headers = sum(1 for _ in model.glob("*.safetensors"))
    hub.faults = [
        Fault("GET /cdn/", body_bytes=None, times=2 * headers),
        Fault("GET /cdn/", 503, {"Retry-After": "60"}, times=99),
    ]
    command = [sys.executable, "-c", code, "spectra", "--model", REPO, "--remote", "--out", str(tmp_path / "o")]
    variables = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "0",
    }
    process = subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True)
    while not any(sent.status == 503 for sent in hub.log):
        time.sleep(0.01)
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and "interrupted; finished jobs are saved, the same command goes on" in err


@pytest.mark.parametrize("body", [b"<html>log in</html>", b'{"ok": true}', b"[]"])
def test_an_answer_that_is_no_hubs_is_refused(
    hub: Hub, run: Callable[..., Result], tmp_path: Path, body: bytes
) -> None:
    hub.faults = [Fault("/api/", 200, body=body, times=99)]
    message = rf"--model {REPO}: what {hub.endpoint} answers is not a hub's .*; check HF_ENDPOINT, HF_TOKEN"
    refuses(run("--model", REPO, "--out", tmp_path / "out"), message, tmp_path / "out")


def test_offline_a_branch_is_what_it_was_at_the_last_run(
    hub: Hub, run: Callable[..., Result], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where that commit was in the cache already, under another name."""
    newer = Path(shutil.copytree(model, tmp_path / "newer"))
    data = bytearray((newer / THIRD).read_bytes())
    data[-2] ^= 1
    (newer / THIRD).write_bytes(data)
    asked = ("--layers", "2", "--projections", "up")
    assert run("--model", REPO, *asked, "--out", tmp_path / "a").code == 0
    commit = hub.publish(REPO, newer, "v2")
    assert run("--model", REPO, "--revision", "v2", *asked, "--out", tmp_path / "b").code == 0
    hub.publish(REPO, newer)  # main moves to the commit of v2
    assert run("--model", REPO, *asked, "--out", tmp_path / "c").code == 0
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert run("--model", REPO, *asked, "--out", tmp_path / "d").code == 0
    commits = [read_json(tmp_path / name / "run.json")["commit"] for name in "bcd"]
    assert commits == [commit] * 3


def test_a_failed_download_leaves_the_earlier_table_and_page(
    hub: Hub, run: Callable[..., Result], tmp_path: Path
) -> None:
    out = tmp_path / "o"
    assert run("--model", REPO, "--layers", "2", "--projections", "up", "--out", out).code == 0
    before = table(out)
    hub.faults = [Fault(f"GET /cdn/.*{FIRST}$", times=1), Fault(f"GET /cdn/.*{FIRST}$", 403, times=99)]
    result = run("--model", REPO, "--out", out)
    assert result.code == 2 and "refuses access" in result.err
    assert table(out) == before


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("/api/", 401, times=99), "hf auth login or set HF_TOKEN"),
        (Fault("/api/", 403, times=99), r"refuses access \(HTTP 403\); run hf auth login"),
        (Fault("/api/", 403, {"X-Error-Code": "GatedRepo"}, times=99), rf"accept the terms at .*{REPO}"),
        (Fault("/api/", 404, {"X-Error-Code": "RepoNotFound"}, times=99), "no such model, or it is private; check"),
        (Fault("/api/", 429, times=99), r"limits the rate of requests \(HTTP 429\); wait"),
        (Fault("/api/", 500, times=99), "answered HTTP 500 several times; check"),
        (Fault("/resolve/.*config.json", 403, times=99), "config.json: .*refuses access"),
        (Fault("GET /cdn/", 403, times=99), rf"{FIRST}: .*refuses access"),
    ],
)
def test_a_refusal_of_the_hub_is_one_message(
    hub: Hub, run: Callable[..., Result], tmp_path: Path, fault: Fault, message: str
) -> None:
    hub.faults = [fault]
    refuses(run("--model", REPO, "--out", tmp_path / "out"), message, tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "acme/absent"), "no such model, or it is private"),
        (("--model", REPO, "--revision", "v9"), "no revision 'v9' of it; give a branch"),
        (("--model", "mini", "--revision", "main"), "--revision main: --model mini is on this disk"),
        (("--model", "mini", "--remote"), "--remote: --model mini is on this disk"),
        (("--model", "acme/.."), "not a valid hub id"),
        (("--model", REPO, "--revision", " "), "--revision: is empty; give a branch"),
    ],
)
def test_what_is_not_there(
    hub: Hub, run: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    refuses(run(*arguments, "--out", tmp_path / "out"), message, tmp_path / "out")


def test_a_failure_in_the_middle_costs_one_job(hub: Hub, run: Callable[..., Result], tmp_path: Path) -> None:
    """Remote: the file behind the second layer's shard is gone when its weights are read."""
    result = run("--model", REPO, "--remote", "--dry-run")
    assert result.code == 0
    reads = len([s for s in hub.log if THIRD in s.request])
    hub.log.clear()
    hub.faults = [Fault("never", times=0)]
    original = hub.fault

    def third_after_headers(request: str) -> Fault | None:
        seen = len([s for s in hub.log if THIRD in s.request])
        return Fault("", 404) if THIRD in request and seen >= reads else original(request)

    hub.fault = third_after_headers  # type: ignore[method-assign]
    result = run("--model", REPO, "--remote", "--out", tmp_path / "o")
    assert result.code == 1, result
    assert "spectra-L001-down  done" in result.err and re.search(
        r"failed: spectra-L002-\w+ and 2 more: .*no such", result.err
    )


def test_a_download_that_is_not_what_the_hub_lists_is_deleted(
    hub: Hub, run: Callable[..., Result], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers were right; the shard that comes has one bit flipped."""
    real = huggingface_hub.hf_hub_download

    def flipped(repo: str, file: str, **options: object) -> str:
        path = real(repo, file, **options)
        if file == SECOND:
            data = bytearray(Path(path).read_bytes())
            data[-1] ^= 1
            Path(path).resolve().write_bytes(data)
        return path

    monkeypatch.setattr("diag.models.hub.hf_hub_download", flipped)
    result = run("--model", REPO, "--out", tmp_path / "o")
    assert result.code == 2 and re.search(rf"{SECOND}: its SHA-256 .*; the download was deleted, run", result.err)
    assert SECOND not in cached(tmp_path) and FIRST in cached(tmp_path)


def test_a_full_disk_names_the_cache(
    hub: Hub, run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("diag.models.hub.hf_hub_download", full)
    message = rf"no space left in {tmp_path / 'hub'}; free some, set HF_HUB_CACHE, or use --remote"
    refuses(run("--model", REPO, "--out", tmp_path / "out"), message, tmp_path / "out")


def test_offline_the_cache_is_enough_or_what_is_missing_is_named(
    hub: Hub, run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--model", REPO, "--layers", "2", "--projections", "up", "--out", tmp_path / "o").code == 0
    hub.log.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    again = run("--model", REPO, "--layers", "2", "--projections", "up", "--out", tmp_path / "p")
    assert again.code == 0 and "HF_HUB_OFFLINE is set: the cached copy" in again.err
    assert table(tmp_path / "o") == table(tmp_path / "p")
    refuses(
        run("--model", REPO, "--out", tmp_path / "out"),
        rf"{FIRST}, {SECOND}: named in the index but not in the cache of {REPO} .HF_HUB_OFFLINE is set.; download",
        tmp_path / "out",
    )
    refuses(run("--model", "acme/other", "--out", tmp_path / "out"), "not in the local .* cache", tmp_path / "out")
    assert not hub.log


def test_no_answer_falls_back_to_the_cache(
    hub: Hub, run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--model", REPO, "--out", tmp_path / "o").code == 0
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    result = run("--model", REPO, "--out", tmp_path / "p")
    assert result.code == 0 and "no answer from the hub" in result.err


def test_a_revision_pins_and_a_moved_branch_is_measured_again(
    hub: Hub, run: Callable[..., Result], model: Path, tmp_path: Path
) -> None:
    assert run("--model", REPO, "--out", tmp_path / "o").code == 0
    before = hub.commit(REPO, "main")
    newer = Path(shutil.copytree(model, tmp_path / "newer"))
    data = bytearray((newer / THIRD).read_bytes())
    data[-2] ^= 1
    (newer / THIRD).write_bytes(data)
    after = hub.publish(REPO, newer)
    assert before != after
    pinned = run("--model", REPO, "--revision", before, "--out", tmp_path / "o")
    assert pinned.code == 0 and "6 of 6 jobs are done already" in pinned.err
    moved = run("--model", REPO, "--out", tmp_path / "o")
    assert moved.code == 0 and "weights changed" in moved.err


def test_bare_names_mean_hub_ids(hub: Hub, tool: Callable[..., Result], model: Path, tmp_path: Path) -> None:
    hub.publish("Qwen/Qwen3-30B-A3B", model)
    result = tool("models", "--model", "Qwen3-30B-A3B")
    assert result.code == 0 and result.out.startswith("Qwen3-30B-A3B\n") and "Qwen3-MoE" in result.out


def test_shards_that_the_index_names_must_be_listed(
    hub: Hub, run: Callable[..., Result], model: Path, tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(model, tmp_path / "changed"))
    index = read_json(changed / INDEX)
    os.remove(changed / SECOND)
    write_json(changed / INDEX, index)
    hub.publish("acme/Broken", changed)
    refuses(
        run("--model", "acme/Broken", "--out", tmp_path / "out"), rf"{SECOND}: named in the index but", tmp_path / "out"
    )
