"""Methods that can be measured stack by stack: they neither join stacks nor share a budget among them."""

from __future__ import annotations

from collections.abc import Iterable

from tdmoe import methods, spec
from tdmoe.problems import InputError


def canonical(text: str) -> str:
    """The spec of a method that can be measured stack by stack; InputError where its options need all of them."""
    method, options = methods.parse(text)
    for option, alone in (("gate_up", "apart"), ("across", "uniform"), ("ratio_of", "targeted")):
        if (value := getattr(options, option, alone)) != alone:
            raise InputError(
                f"--methods {text}: {option}={value} joins stacks or shares a budget among them; every stack is "
                f"measured by itself here, leave {option} out"
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
