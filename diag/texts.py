"""Texts to calibrate and evaluate on: four built in, or any UTF-8 file.

    load_text("wikitext2"); load_text("notes.txt"); load_text("notes.txt.gz")

Line ends are never translated, because tokenizers see them. Origins and licences: `assets/texts/LICENSES.md`.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from tdmoe.problems import InputError

GZIP_MAGIC = b"\x1f\x8b"  # never the start of UTF-8 text: 0x8b cannot follow 0x1f there


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


def load_text(name_or_path: str | Path) -> str:
    """The text of a built-in name, or of a UTF-8 file, gzip or plain.

    A built-in name wins over a file of the same name; write `./wikitext2` for the file.
    Raises ValueError, with what to do about it, for anything that cannot be read as a non-empty text.
    """
    builtin = TEXTS.get(str(name_or_path)) if isinstance(name_or_path, str) else None
    if builtin is None:
        return _decode(_read_file(name_or_path), f"text file {str(name_or_path)!r}")
    label = f"built-in text {builtin.name!r}"
    try:
        content = (resources.files("diag") / "assets" / "texts" / builtin.file).read_bytes()
    except OSError as error:
        raise ValueError(f"{label}: {builtin.file} is missing from the installation ({error}); reinstall") from error
    content = _unzip(content, label)
    found = hashlib.sha256(content).hexdigest()
    if found != builtin.sha256:
        raise ValueError(f"{label}: sha256 of the content is {found}, not {builtin.sha256}; reinstall the package")
    return _decode(content, label)


def text_of(option: str, name: str) -> str:
    """`load_text` of what an option was given; InputError, naming it, where there is none."""
    try:
        return load_text(name)
    except ValueError as error:
        raise InputError(f"{option} {name}: {error}") from error


def _read_file(name_or_path: str | Path) -> bytes:
    """The uncompressed bytes of a file the user named."""
    try:
        content = Path(name_or_path).read_bytes()
    except FileNotFoundError as error:
        raise ValueError(
            f"no text {str(name_or_path)!r}: it is neither a built-in name ({', '.join(TEXTS)}) nor an existing file; "
            "the path of a UTF-8 text file, plain or .gz, works too"
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
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{label} is not UTF-8 (byte {error.start}: {error.reason}); convert it to UTF-8") from error
    if not text.strip():
        raise ValueError(f"{label} is empty; give a file that holds text")
    return text
