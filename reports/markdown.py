"""Markdown of ours (paragraphs, lists, emphasis, code, headings) as HTML; raw HTML in it stays text."""

from markdown_it import MarkdownIt
from markupsafe import Markup

_HEADINGS = 3  # levels that a heading is lowered by, as it stands inside a section of the page


def html(text: str) -> Markup:
    """The text as HTML; its headings begin at level 4."""
    parser = MarkdownIt("commonmark", {"html": False})
    tokens = parser.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + _HEADINGS)}"
    return Markup(parser.renderer.render(tokens, parser.options, {}))
