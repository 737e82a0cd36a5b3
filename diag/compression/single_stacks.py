"""Methods that can be measured stack by stack: they neither join stacks nor share a budget among them."""

from __future__ import annotations

from collections.abc import Iterable

from tdmoe import methods, spec


def canonical(text: str) -> str:
    """The spec of a method that can be measured stack by stack; InputError where its options need all of them."""
    method, options = methods.parse(text)
    method.check_alone(options)
    return spec.text(method.NAME, options)


def by_themselves(specs: Iterable[str]) -> list[str]:
    """Specs of methods that work on a stack by itself, in canonical form; InputError for what is no method."""
    parsed = map(methods.parse, specs)
    return list(dict.fromkeys(spec.text(method.NAME, options) for method, options in parsed if not method.tie(options)))
