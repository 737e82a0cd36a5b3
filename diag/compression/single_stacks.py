"""Methods that can be measured stack by stack: they neither join stacks nor share a budget among them."""

from __future__ import annotations

from collections.abc import Iterable

from tdmoe import methods, spec
from tdmoe.problems import InputError


def canonical(text: str) -> str:
    """The spec of a method that can be measured stack by stack; InputError where its options need all of them."""
    method, options = methods.parse(text)
    if tie := method.tie(options):
        raise InputError(
            "methods",
            text,
            f"{tie} joins stacks or shares a budget among them",
            f"every stack is measured by itself here, leave {tie.partition('=')[0]} out",
        )
    return spec.text(method.NAME, options)


def by_themselves(specs: Iterable[str]) -> list[str]:
    """Those of the specs that are such methods, in their canonical form; InputError for what is no method."""
    found = []
    for text in specs:
        methods.parse(text)
        try:
            found.append(canonical(text))
        except InputError:
            continue
    return list(dict.fromkeys(found))
