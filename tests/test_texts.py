"""Built-in texts are what their table and licence file say; files load untouched; every mistake is explained."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import re
from importlib import resources
from pathlib import Path

import pytest

from diag import texts
from diag.texts import TEXTS, load_text

FOLDER = resources.files("diag") / "assets" / "texts"


def test_builtin_names() -> None:
    assert list(TEXTS) == ["wikitext2", "enwik8", "c4-calibration", "c4-eval"]


@pytest.mark.parametrize("name", TEXTS)
def test_builtin_content_has_the_published_sha256(name: str) -> None:
    assert hashlib.sha256(load_text(name).encode()).hexdigest() == TEXTS[name].sha256


@pytest.mark.parametrize("text", TEXTS.values(), ids=lambda text: text.name)
def test_licence_file_lists_each_text(text: texts.BuiltinText) -> None:
    row = rf"\| `{re.escape(text.file)}` \| {len(load_text(text.name).encode())} \| {text.licence}.*`{text.sha256}` \|"
    assert re.search(row, (FOLDER / "LICENSES.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", TEXTS.values(), ids=lambda text: text.name)
def test_gzip_header_names_no_time_and_no_file(text: texts.BuiltinText) -> None:
    header = (FOLDER / text.file).read_bytes()[:10]
    assert header[3:8] == bytes(5)  # no flags, so no file name; modification time 0


def test_c4_samples_are_disjoint() -> None:
    calibration, evaluation = (
        {line for line in load_text(name).split("\n") if len(line) >= 80} for name in ("c4-calibration", "c4-eval")
    )
    assert len(calibration) > 500 and len(evaluation) > 3000
    assert calibration.isdisjoint(evaluation)


@pytest.mark.parametrize("name", ["plain.txt", "packed.txt.gz", "packed-without-suffix"])
def test_file_is_read_untouched(tmp_path: Path, name: str) -> None:
    text = "first\r\nsecond\rthird – é\u2028\n\n"
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.startswith("packed") else text.encode())
    assert load_text(path) == text
    assert load_text(str(path)) == text


def test_path_reaches_a_file_named_like_a_builtin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wikitext2").write_text("mine")
    assert load_text("./wikitext2") == load_text(Path("wikitext2")) == "mine"
    assert load_text("wikitext2") != "mine"


@pytest.mark.parametrize("value", ["wikitext3", "missing/file.txt"])
def test_unknown_name_or_missing_file_lists_what_works(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        load_text(value)
    assert repr(value) in str(caught.value)
    assert all(name in str(caught.value) for name in TEXTS)
    assert "path of a UTF-8 text file" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (b"caf\xe9 au lait", "not UTF-8 .byte 3"),
        (gzip.compress(b"\xff\xfe", mtime=0), "not UTF-8"),
        (gzip.compress(b"a text long enough to be cut" * 9, mtime=0)[:-12], "damaged gzip"),
        (gzip.compress(b"a text", mtime=0)[:10] + b"\xff" * 20, "damaged gzip"),
    ],
)
def test_unusable_file_is_explained(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_text(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("value", ["", ".", "a\0b"])
def test_what_is_no_file_is_explained(value: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        load_text(value)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"sha256": "0" * 64}, "sha256 of the content is 7746.* not 0000"), ({"file": "gone.txt.gz"}, "is missing")],
)
def test_damaged_installation_is_noticed(monkeypatch: pytest.MonkeyPatch, change: dict[str, str], message: str) -> None:
    monkeypatch.setitem(TEXTS, "enwik8", dataclasses.replace(TEXTS["enwik8"], **change))
    with pytest.raises(ValueError, match=message):
        load_text("enwik8")
