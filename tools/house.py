"""Count the house: lines, rooms, circles, floors, stems, first words of docstrings. `make house` prints them."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("tdmoe", "diag", "reports")
MOST_LINES, MOST_ROOMS, MOST_OF_A_FILE, MOST_OF_A_FIGURE = 28_000, 15, 500, 20
FLOORS = {  # of a package's folders, the lowest first: a module imports none of a higher one
    "tdmoe": (
        *("problems", "spec", "checkpoint", "stacks", "numerics", "forms", "tucker", "mobe", "method", "methods"),
        *("compression", "runtime", "hub"),
    ),
    "diag": (
        *("declare", "runs", "inputs", "models", "statistics", "lockstep", "jobs", "compression", "probes", "verdict"),
        *("pages", "experiment", "cli", "start", "__main__"),
    ),
}
SAME_NAMES = {"__init__", "settings", "measure", "columns", "claims", "figures", "work", "terminal"}  # of every probe
DANGLING = re.compile(  # the first words after which a text says nothing by itself
    r"\W*(of|with|by|those|that|where|what|whether|how|here|likewise|as|for|from|in|into|at|on|to|than|once|also|and|or|but"
    r"|after|before|between|over|under|while|without|which|its|so|these|such)\b",
    re.I,
)
Module = tuple[str, ...]


def modules() -> dict[Module, ast.Module]:
    """Every module of the product, by the parts of its name."""
    found = {}
    for package in PACKAGES:
        for path in sorted(Path(package).rglob("*.py")):
            parts = path.with_suffix("").parts
            found[parts[:-1] if parts[-1] == "__init__" else parts] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(tree: ast.AST, known: set[Module], *, lazy: bool) -> Iterator[Module]:
    """Modules of ours that it imports; those inside functions only where `lazy`."""
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    inside = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.module or id(node) in typing:
            continue
        if id(node) in inside and not lazy:
            continue
        base = tuple(node.module.split("."))
        for alias in node.names:
            for name in ((*base, alias.name), base):
                if name in known:
                    yield name
                    break


def circles(graph: dict[Module, set[Module]]) -> list[list[str]]:
    """Modules that import each other, directly or through others, when they are loaded."""
    order: list[Module] = []
    seen: set[Module] = set()

    def visit(start: Module, edges: dict[Module, set[Module]], out: list[Module]) -> None:
        stack = [(start, iter(sorted(edges[start])))]
        seen.add(start)
        while stack:
            node, following = stack[-1]
            for other in following:
                if other not in seen:
                    seen.add(other)
                    stack.append((other, iter(sorted(edges[other]))))
                    break
            else:
                stack.pop()
                out.append(node)

    for node in graph:
        if node not in seen:
            visit(node, graph, order)
    backwards: dict[Module, set[Module]] = defaultdict(set)
    for node, others in graph.items():
        for other in others:
            backwards[other].add(node)
    seen.clear()
    found = []
    for node in reversed(order):
        if node not in seen:
            group: list[Module] = []
            visit(node, backwards, group)
            if len(group) > 1:
                found.append(sorted(".".join(each) for each in group))
    return found


def upward(graph: dict[Module, set[Module]]) -> list[str]:
    """Imports from a lower floor to a higher one; of `reports`, any of ours."""
    found = []
    for node, others in graph.items():
        for other in others:
            if node[0] != other[0]:
                allowed = {"diag": ("tdmoe", "reports")}.get(node[0], ())
                bad = other[0] not in allowed
            else:
                floors = FLOORS.get(node[0], ())
                places = [
                    floors.index(each[1]) if len(each) > 1 and each[1] in floors else -1 for each in (node, other)
                ]
                bad = -1 not in places and places[0] < places[1]
            if bad:
                found.append(f"{'.'.join(node)} -> {'.'.join(other)}")
    return sorted(found)


def rooms() -> dict[str, int]:
    """Files and folders of every folder, without __init__."""
    found = {}
    for package in PACKAGES:
        for folder in [Path(package), *(each for each in Path(package).rglob("*") if each.is_dir())]:
            if folder.name != "__pycache__" and any(folder.glob("*.py")):
                inside = [
                    each
                    for each in folder.iterdir()
                    if (each.suffix == ".py" and each.stem != "__init__") or (each.is_dir() and any(each.glob("*.py")))
                ]
                found[str(folder)] = len(inside)
    return found


def first_words(trees: dict[Module, ast.Module]) -> Counter[str]:
    """How many docstrings begin with each of the words that do not stand alone, by package."""
    found: Counter[str] = Counter()
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found[name[0]] += bool(DANGLING.match(ast.get_docstring(node) or ""))
    return found


def counts() -> dict[str, object]:
    """What `make house` prints."""
    trees = modules()
    known = set(trees)
    graph = {name: set(imports(tree, known, lazy=False)) - {name} for name, tree in trees.items()}
    lazy = {name: set(imports(tree, known, lazy=True)) - {name} for name, tree in trees.items()}
    lines = {
        package: sum(len(p.read_text(encoding="utf-8").splitlines()) for p in Path(package).rglob("*.py"))
        for package in PACKAGES
    }
    paths = [path for package in PACKAGES for path in Path(package).rglob("*.py") if path.stem not in SAME_NAMES]
    stems = Counter((path.parts[0], path.stem) for path in paths)
    long = {
        str(path): count
        for package in PACKAGES
        for path in Path(package).rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > MOST_OF_A_FILE
    }
    figures = {
        f"{'.'.join(name)}.{node.name}": node.end_lineno - node.lineno + 1
        for name, tree in trees.items()
        if name[-1] == "figures" and name[0] == "diag"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None
    }
    return {
        "product lines": sum(lines.values()),
        "lines by package": lines,
        "modules": len(trees),
        "files above 500 lines": long,
        "folders above 15 rooms": {folder: count for folder, count in rooms().items() if count > MOST_ROOMS},
        "circles": circles(graph),
        "imports upward": upward(lazy),
        "stems twice": sorted(f"{package}: {stem}" for (package, stem), count in stems.items() if count > 1),
        "docstrings that do not stand alone": dict(first_words(trees)),
        "figures above 20 lines": {name: count for name, count in figures.items() if count > MOST_OF_A_FIGURE},
    }


def main() -> None:
    for name, value in counts().items():
        if isinstance(value, list):
            print(f"{name}: {len(value)}", *value, sep="\n  ")
        elif isinstance(value, dict):
            print(f"{name}: {len(value)}", *(f"{key}: {count}" for key, count in value.items()), sep="\n  ")
        else:
            print(f"{name}: {value:,}")


if __name__ == "__main__":
    main()
