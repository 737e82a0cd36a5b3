"""The English of docstrings and help texts: each begins with an imperative or a noun phrase, and sentences are short.

A first word such as Of or With leaves a text that says nothing by itself; tools/house.py lists and counts them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.house import DANGLING, PACKAGES

ROOT = Path(__file__).parent.parent
NODES = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
TYPER = ("Option", "Argument", "Typer")
MOST_WORDS = 30  # of a sentence; symbols, numbers and single letters are no words
WORD = re.compile(r"[A-Za-z][a-z][\w'-]*")


def docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(name, docstring) of a module and of everything in it."""
    for node in ast.walk(tree):
        if isinstance(node, NODES) and (text := ast.get_docstring(node)):
            yield getattr(node, "name", "module"), text


def helps(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(flag, help text) of every typer option or argument, and (line, help text) of every declared setting."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in TYPER:
            for keyword in node.keywords:
                if keyword.arg == "help" and isinstance(keyword.value, ast.Constant):
                    flag = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else "argument"
                    yield str(flag), str(keyword.value.value)
        match node:
            case ast.Call(func=ast.Name(id="setting"), args=[_, ast.Constant(value=text)]):
                yield f"setting in line {node.lineno}", str(text)


def sentences(text: str) -> Iterator[str]:
    """Sentences of its prose: no equations (indented), no legend of symbols; a line of a list is one."""
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    for paragraph in re.split(r"\n\s*\n|\n(?=- |\S+ {2,})", prose):
        if not paragraph.lstrip().startswith("Legend:"):
            yield from re.split(r"(?<=[.;:?!])\s+", " ".join(paragraph.split()))


def faults(name: str, text: str) -> Iterator[str]:
    """What is wrong with a text."""
    if first := DANGLING.match(text):
        yield f"{name}: begins with {first[1]}: {text.splitlines()[0]}"
    for sentence in sentences(text):
        if (count := len(WORD.findall(sentence))) > MOST_WORDS:
            yield f"{name}: {count} words: {sentence}"


def files() -> list[Path]:
    """Python files of the packages that joined."""
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_and_help_stand_alone(path: Path) -> None:
    tree = ast.parse(path.read_text())
    found = [fault for name, text in (*docstrings(tree), *helps(tree)) for fault in faults(name, text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Of a stack.", "begins with Of"),
        ("`where` the rest.\n\nMore.", "begins with where"),
        ("Ranks of a stack.", ""),
        ("By", "begins with By"),
        ("A legend.\n\nLegend: " + "word, " * 40, ""),
        ("An equation:\n\n    " + "word " * 40, ""),
        ("A text. " + "word " * 31 + ".", "31 words"),
        ("A text of x y z and 1 2 3. " + "word " * 30 + ".", ""),
    ],
)
def test_the_lint_itself(text: str, fault: str) -> None:
    found = list(faults("it", text))
    assert (fault in found[0]) if fault else not found


def test_no_stem_twice_in_tdmoe() -> None:
    """A file may be called as a folder is, as methods/mobe.py and mobe/, but not as another file."""
    stems = [path.stem for path in (ROOT / "tdmoe").rglob("*.py") if path.stem != "__init__"]
    assert sorted(set(stems)) == sorted(stems)
