"""Method specs as people read them: the display name, then the options that differ from the defaults.

What a method is called and what kind it is comes from whoever makes the page (`name_methods`).
"""

from collections.abc import Mapping

NAMES = {"dense": "dense"}
_FAMILIES: dict[str, str] = {}


def name_methods(described: Mapping[str, tuple[str, str, str]]) -> None:
    """Take {name: (display name, family, reference)} for all pages of this process."""
    NAMES.update({name: display for name, (display, _, _) in described.items()})
    _FAMILIES.update({name: family for name, (_, family, _) in described.items()})


def is_control(name: str) -> bool:
    """Tell whether a method shows what no compression, or one of everything, does."""
    return _FAMILIES.get(name) == "control"
