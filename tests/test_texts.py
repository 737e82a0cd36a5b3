"""Built-in texts are what their table and licence file say; files give one text however written; mistakes explained."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import re
from importlib import resources
from pathlib import Path

import pytest

from diag.inputs import texts
from diag.inputs.texts import TEXTS, load_text, text_notes

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


LF_TEXT = "first\nsecond\rthird – é\u2028\n\n"
LINES = [{"text": "one\r\nand two", "url": "x"}, {"url": "y", "text": "caf\u00e9"}]
JSON_LINES = "".join(json.dumps(line) + "\r\n" for line in LINES) + "\n"
OF_FIELD = "of its 2 JSON lines the field 'text' is read, joined by blank lines"


@pytest.mark.parametrize(
    ("name", "content", "text", "notes"),
    [
        ("plain.txt", LF_TEXT, LF_TEXT, []),
        ("windows.txt", LF_TEXT.replace("\n", "\r\n"), LF_TEXT, ["its CRLF line ends (3) are read as LF"]),
        ("mixed.txt", "a\r\nb\nc\rd", "a\nb\nc\rd", ["its CRLF line ends (1) are read as LF"]),
        ("marked.md", "\ufeffa\ufeffb", "a\ufeffb", ["its byte order mark is left out"]),
        ("both", "\ufeffa\r\n", "a\n", ["its byte order mark is left out", "its CRLF line ends (1) are read as LF"]),
        (
            *("documents.jsonl", JSON_LINES, "one\nand two\n\ncaf\u00e9"),
            [OF_FIELD, "its CRLF line ends (1) are read as LF"],
        ),
        (
            "marked.NDJSON",
            "\ufeff" + json.dumps(LINES[1]),
            "café",
            ["its byte order mark is left out", OF_FIELD.replace("2", "1")],
        ),
    ],
)
@pytest.mark.parametrize("packed", ["", ".gz", "without suffix"])
def test_a_file_gives_the_same_text_however_it_is_written(
    tmp_path: Path, name: str, content: str, text: str, notes: list[str], packed: str
) -> None:
    path = tmp_path / (name + packed.replace("without suffix", ""))
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    assert load_text(path) == load_text(str(path)) == text
    assert text_notes(("--text", str(path))) == [f"--text {path}: {note}" for note in notes]


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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            '{"text": "good"}\n\n{"content": "x"}',
            r"line 3 has no text in a field 'text' .it has fields 'content'",
        ),
        ("a.jsonl", '{"text": "good"}\n{"text": 3}', "line 2 has no text in a field 'text'"),
        ("a.jsonl.gz", '["text"]', "line 1 has no text in a field 'text' .it has list"),
        ("a.jsonl", '{"text": "good"}\nplain words', "line 2 is not JSON"),
        ("a.jsonl", "[" * 100_000, "line 1 is not JSON"),
        ("a.jsonl", '{"text": " "}', "is empty"),
        ("a.JSON", '{"text": "good"}', "holds JSON, which is not read as a text; give plain UTF-8 text, or JSON lines"),
        ("a.parquet", "PAR1", "holds Parquet, which is not read as a text"),
        ("a.json.gz", "{}", "holds JSON"),
    ],
)
def test_what_is_no_plain_text_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_text(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


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
