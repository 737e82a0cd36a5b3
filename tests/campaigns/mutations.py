"""Seeded damage to files of bytes and of JSON; each returns what it did, in words."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HUGE = "@HUGE@"  # stands for a number of 5,000 digits, which Python refuses to print
DEEP = "@DEEP@"  # for lists in lists
WEIRD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 10**9, 2**31, 2**63, 10**30, HUGE, 0.5, -0.5, 1e-30, 1e308, float("inf")),
    *(
        float("nan"),
        "",
        " ",
        "x",
        "0",
        "-1",
        "None",
        "\x1b[31m",
        "\u202e",
        "\ud800",
        "../../x",
        "/etc/passwd",
        "a" * 5000,
    ),
    *([], [1], [[]], ["float32"], {}, {"a": 1}, {"rope_type": "linear", "factor": 2.0}, DEEP),
)


def weird(draw: random.Random, value: Any) -> Any:
    """Another value, often near to this one."""
    near: list[Any] = []
    if isinstance(value, bool):
        near = [not value, str(value), int(value)]
    elif isinstance(value, int | float):
        near = [value + 1, value - 1, -value, 2 * value, value / 2, float(value), str(value), [value]]
    elif isinstance(value, str):
        near = [value + "x", value[:-1], value.upper(), [value]]
    elif isinstance(value, list):
        near = [value[::-1], value[1:], value + value[:1], tuple(value), value + [None]]
    elif isinstance(value, dict):
        near = [list(value), {**value, "x": 1}, dict(list(value.items())[1:])]
    return draw.choice(near) if near and draw.random() < 0.5 else draw.choice(WEIRD)


def damage_bytes(draw: random.Random, path: Path) -> str:
    """The file as a whole: cut, lengthened, flipped, emptied, gone, or something that is no file."""
    raw = path.read_bytes()
    how = draw.choice(
        (
            "cut",
            "cut",
            "cut",
            "flip",
            "flip",
            "flip",
            "append",
            "insert",
            "empty",
            "gone",
            "folder",
            "fifo",
            "loop",
            "link",
        )
    )
    if how == "cut":
        count = draw.choice((1, 2, 8, draw.randrange(1, max(2, len(raw)))))
        path.write_bytes(raw[:-count])
        return f"{path.name} cut by {count} bytes"
    if how == "flip":
        changed, at = bytearray(raw), [draw.randrange(max(1, len(raw))) for _ in range(draw.choice((1, 1, 3, 20)))]
        for place in at if raw else ():
            changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        return f"{path.name}: bits flipped at {at[:3]}"
    if how in ("append", "insert"):
        added = draw.randbytes(draw.choice((1, 8, 100)))
        at = len(raw) if how == "append" else draw.randrange(max(1, len(raw)))
        path.write_bytes(raw[:at] + added + raw[at:])
        return f"{path.name}: {len(added)} bytes inserted at {at}"
    if how == "empty":
        path.write_bytes(b"")
        return f"{path.name} emptied"
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "link":
        target = path.with_name("moved-" + path.name)
        target.write_bytes(raw)
        path.symlink_to(target.name)
        return f"{path.name} is a link to a copy"
    return f"{path.name} is {'gone' if how == 'gone' else 'a ' + how}"


def damage_json(draw: random.Random, path: Path) -> str:
    """A value somewhere in it is replaced, deleted, added or doubled, or its text is broken."""
    raw = path.read_bytes()
    if draw.random() < 0.12:
        return damage_json_text(draw, path, raw)
    changed, what = changed_json(draw, json.loads(raw))
    path.write_bytes(as_text(changed).encode("utf-8", "surrogatepass"))
    return f"{path.name}: {what}"


def changed_json(draw: random.Random, value: Any, wanted: Callable[[str], bool] = lambda name: True) -> tuple[Any, str]:
    """A copy with one change, and that in words."""
    holder = {"": json.loads(json.dumps(value))}
    places = [(parent, key, where) for parent, key, where in _places(holder, "") if wanted(where)]
    parent, key, where = draw.choice(places)
    how = draw.choice(("replace", "replace", "replace", "replace", "delete", "add", "rename"))
    if how == "delete" and parent is not holder:
        del parent[key]
        return holder[""], f"{where} deleted"
    if how == "add" and isinstance(parent, dict) and parent is not holder:
        name = draw.choice(("quantization_config", "text_config", "torch_dtype", "dtype", "auto_map", "x", key + " "))
        parent[name] = draw.choice(WEIRD)
        return holder[""], f"{name} = {str(parent[name])[:30]!r} beside {where}"
    if how == "rename" and isinstance(parent, dict) and parent is not holder:
        parent[key + "x"] = parent.pop(key)
        return holder[""], f"{where} renamed"
    parent[key] = weird(draw, parent[key])
    return holder[""], f"{where or 'all of it'} = {str(parent[key])[:30]!r}"


def damage_json_text(draw: random.Random, path: Path, raw: bytes) -> str:
    name, content = draw.choice(
        (
            ("a byte order mark", b"\xef\xbb\xbf" + raw),
            ("UTF-16", raw.decode("utf-8", "replace").encode("utf-16")),
            ("deeply nested", b"[" * 100_000),
            ("deeply nested and closed", b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
            ("not UTF-8", raw[:-2] + b"\xff\xfe" + raw[-2:]),
            ("a NUL", raw + b"\x00"),
            ("a trailing comma", raw.rstrip()[:-1] + b",}"),
            ("a comment", b"// no\n" + raw),
            ("spaces", raw + b" \n" * 1000),
            ("two documents", raw + raw),
            ("a list of it", b"[" + raw + b"]"),
        )
    )
    path.write_bytes(content)
    return f"{path.name}: {name}"


def as_text(value: Any) -> str:
    """JSON with what stands for what Python would not write."""
    said = json.dumps(value, ensure_ascii=False)
    return said.replace(f'"{HUGE}"', "1" + "0" * 5000).replace(f'"{DEEP}"', "[" * 3000 + "]" * 3000)


def _places(value: Any, where: str) -> Iterator[tuple[Any, Any, str]]:
    """(holder, key, path) of everything in it."""
    items: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(value, dict):
        items = iter(list(value.items()))
    elif isinstance(value, list):
        items = iter(list(enumerate(value[:20])))
    for key, inner in items:
        name = f"{where}.{key}".strip(".")
        yield value, key, name
        yield from _places(inner, name)


def regular(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.is_file()
    return False
