"""Texts to calibrate and evaluate on: four built in, or any UTF-8 file, plain or JSON lines, also as .gz.

    load_text("wikitext2"); load_text("notes.txt"); load_text("notes.txt.gz"); load_text("documents.jsonl")

Tokenizers see line ends and byte order marks, so that of a file CRLF is read as LF and the mark is left out: the same
text gives the same numbers. `text_notes` says so. Origins and licences: `assets/texts/LICENSES.md`.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from tdmoe.checkpoint import json_text
from tdmoe.problems import InputError

GZIP_MAGIC = b"\x1f\x8b"  # never the start of UTF-8 text: 0x8b cannot follow 0x1f there
BOM, CRLF = "\ufeff", "\r\n"
JSON_LINES, FIELD = (".jsonl", ".ndjson"), "text"
NO_TEXTS = {  # by the end of the name
    **{".json": "JSON", ".parquet": "Parquet", ".arrow": "Arrow", ".zip": "a zip archive", ".zst": "Zstandard"},
    **{".bz2": "bzip2", ".xz": "xz", ".pdf": "PDF"},
}


@dataclass(frozen=True)
class BuiltinText:
    """One text of the wheel; `sha256` is that of the uncompressed content."""

    name: str
    file: str
    sha256: str
    licence: str
    description: str


TEXTS: dict[str, BuiltinText] = {
    text.name: text
    for text in (
        BuiltinText(
            "wikitext2",
            "wikitext2.txt.gz",
            "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08",
            "CC BY-SA 3.0 and GFDL",
            "WikiText-2 raw test split, the usual perplexity text",
        ),
        BuiltinText(
            "enwik8",
            "enwik8.txt.gz",
            "77464107416564b860ba6f19d0ae47720f91d3fd0be2c3eb94bae2c3137c388e",
            "CC BY-SA 3.0 and GFDL",
            "cleaned English Wikipedia prose, held out from the training text of `mini`",
        ),
        BuiltinText(
            "c4-calibration",
            "c4-calibration.txt.gz",
            "2daf1ef16e02dbd337f86296acd4c3f2eb703800ad21fd1f48b40280c699cd41",
            "ODC-BY 1.0",
            "C4 web text, default for calibration",
        ),
        BuiltinText(
            "c4-eval",
            "c4-eval.txt.gz",
            "ee2fb5542e72c3b6979b362f41182d2dd043549912b32fe1438685bc16c563e3",
            "ODC-BY 1.0",
            "C4 web text for evaluation, disjoint from c4-calibration",
        ),
    )
}


@dataclass(frozen=True)
class Text:
    """A text, and what of its file is read otherwise than it stands there."""

    content: str
    read_as: tuple[str, ...] = ()


def load_text(name_or_path: str | Path) -> str:
    """The text of a built-in name, or of a UTF-8 file, gzip or plain.

    A built-in name wins over a file of the same name; write `./wikitext2` for the file.
    Raises ValueError, with what to do about it, for anything that cannot be read as a non-empty text.
    """
    return read_text(name_or_path).content


def read_text(name_or_path: str | Path) -> Text:
    """`load_text`, with what was read otherwise."""
    builtin = TEXTS.get(str(name_or_path)) if isinstance(name_or_path, str) else None
    if builtin is None:
        return _text_of_file(name_or_path)
    label = f"built-in text {builtin.name!r}"
    try:
        content = (resources.files("diag") / "assets" / "texts" / builtin.file).read_bytes()
    except OSError as error:
        raise ValueError(f"{label}: {builtin.file} is missing from the installation ({error}); reinstall") from error
    content = _unzip(content, label)
    found = hashlib.sha256(content).hexdigest()
    if found != builtin.sha256:
        raise ValueError(f"{label}: sha256 of the content is {found}, not {builtin.sha256}; reinstall the package")
    return Text(_decode(content, label))


def text_of(option: str, name: str) -> str:
    """`load_text` of what an option was given; InputError, naming it, where there is none."""
    try:
        return load_text(name)
    except ValueError as error:
        raise InputError(option, name, str(error)) from error


def check_texts(*texts: tuple[str, str]) -> None:
    """InputError for the first of (option, name) that is no text; asked before a model is opened."""
    for option, name in texts:
        if name not in TEXTS:
            text_of(option, name)


def text_notes(*texts: tuple[str, str]) -> list[str]:
    """Notes on what is read otherwise than it stands there, of (option, name) of texts."""
    return [f"{option} {name}: {note}" for option, name in texts for note in read_text(name).read_as]


def _text_of_file(name_or_path: str | Path) -> Text:
    """A file's text, with LF for CRLF and without a byte order mark; of JSON lines the field `text`."""
    label = f"text file {str(name_or_path)!r}"
    raw = _read_file(name_or_path)
    name = Path(name_or_path).name.lower().removesuffix(".gz")
    if (kind := NO_TEXTS.get(Path(name).suffix)) is not None:
        raise ValueError(
            f"{label} holds {kind}, which is not read as a text; give plain UTF-8 text, or JSON lines "
            f"({JSON_LINES[0]}) with a field {FIELD!r}, also as .gz"
        )
    content, notes = _decode(raw, label), []
    if content.startswith(BOM):
        content = content.removeprefix(BOM)
        notes.append("its byte order mark is left out")
    if name.endswith(JSON_LINES):
        documents = _json_lines(content, label)
        content = "\n\n".join(documents)
        notes.append(f"of its {len(documents):,} JSON lines the field {FIELD!r} is read, joined by blank lines")
    if count := content.count(CRLF):
        content = content.replace(CRLF, "\n")
        notes.append(f"its CRLF line ends ({count:,}) are read as LF")
    return Text(_not_empty(content, label), tuple(notes))


def _json_lines(content: str, label: str) -> list[str]:
    """The field `text` of every line; ValueError names line and field where there is none."""
    found = []
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json_text.parse(line.encode())
        except ValueError as error:
            raise ValueError(f"{label}: line {number} is not JSON ({error}); give a JSON object a line") from error
        if not isinstance(value, dict) or not isinstance(value.get(FIELD), str):
            has = f"fields {', '.join(map(repr, value))}"[:200] if isinstance(value, dict) else type(value).__name__
            raise ValueError(f"{label}: line {number} has no text in a field {FIELD!r} (it has {has}); name it so")
        found.append(value[FIELD])
    return found


def _read_file(name_or_path: str | Path) -> bytes:
    """The uncompressed bytes of a file the user named."""
    try:
        content = Path(name_or_path).read_bytes()
    except FileNotFoundError as error:
        raise ValueError(
            f"no text {str(name_or_path)!r}: it is neither a built-in name ({', '.join(TEXTS)}) nor an existing file; "
            "the path of a UTF-8 text file, plain or .jsonl, also as .gz, works too"
        ) from error
    except (OSError, ValueError) as error:  # a folder, no permission, or a NUL in the name
        raise ValueError(f"text file {str(name_or_path)!r} cannot be read: {error}") from error
    return _unzip(content, f"text file {str(name_or_path)!r}")


def _unzip(content: bytes, label: str) -> bytes:
    """Undo gzip, told by its first two bytes rather than by the file's name."""
    if not content.startswith(GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{label} is a damaged gzip file: {error}; fetch or compress it again") from error


def _decode(content: bytes, label: str) -> str:
    """Bytes to text, refusing what is not UTF-8 and what holds nothing but white space."""
    try:
        return _not_empty(content.decode("utf-8"), label)
    except UnicodeDecodeError as error:
        raise ValueError(f"{label} is not UTF-8 (byte {error.start}: {error.reason}); convert it to UTF-8") from error


def _not_empty(text: str, label: str) -> str:
    if not text.strip(BOM).strip():
        raise ValueError(f"{label} is empty; give a file that holds text")
    return text
