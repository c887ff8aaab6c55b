"""HTML and SVG written safely: whatever is not made by :func:`tag` is text, and is escaped."""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterable
from typing import Any

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_QUOTED = re.compile(r"""(?<!\w)('(?:[^'\\]|\\.)+'|"(?:[^"\\]|\\.)+")(?!\w)""")
_VOID = frozenset({"meta", "br", "hr", "input", "link", "img"})

Content = Any
"""Text, a number, Markup, None (nothing), or an iterable of these."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(text: object) -> Markup:
    r"""Return text as HTML that shows it; control characters and half surrogates are replaced.

    >>> print(escape('<b title="x">\n&\x00'))
    &lt;b title=&quot;x&quot;&gt;
    &amp;�
    """
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(_UNPRINTABLE.sub("\ufffd", str(text)), quote=True))


def join(*contents: Content) -> Markup:
    """Return contents one after the other.

    >>> print(join("a < ", tag("b", "c"), None, [1, 2]))
    a &lt; <b>c</b>12
    """
    return Markup("".join(_pieces(contents)))


def _pieces(contents: Iterable[Content]) -> Iterable[str]:
    for content in contents:
        if content is None:
            continue
        if isinstance(content, str):
            yield escape(content)
        elif isinstance(content, Iterable):
            yield from _pieces(content)
        else:
            yield escape(content)


def tag(name: str, /, *contents: Content, **attributes: Any) -> Markup:
    """Return an element.

    Parameters
    ----------
    name : str
        Of the element.
    contents : Content
        What is in it.
    attributes : str, number or bool
        A trailing underscore is taken off and others become hyphens; None and False leave the
        attribute out, True gives its name alone; numbers are written with up to five digits.

    Examples
    --------
    >>> print(tag("td", "<1>", class_="number", data_key=0.123456789, hidden=False))
    <td class="number" data-key="0.12346">&lt;1&gt;</td>
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*contents)}</{name}>")


def _attribute(key: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    name = key.removesuffix("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return f' {name}="{escape(text)}"'


def item(name: str) -> Markup:
    """Return an item's name, kept apart from the direction of the text around it.

    >>> print(item("<x>"))
    <bdi>&lt;x&gt;</bdi>
    """
    return tag("bdi", visible(name))


def visible(name: str) -> str:
    r"""Return a name on one line, with something to see where there would be nothing.

    >>> visible("a\n b"), visible("  ")
    ('a b', '(blank)')
    """
    return " ".join(name.split()) or "(blank)"


def short(name: str, most: int = 22) -> str:
    """Return a name cut to a length that fits into a figure.

    >>> short("x" * 30, 5)
    'xxxx…'
    """
    text = visible(name)
    return text if len(text) <= most else text[: most - 1] + "…"


def sentence(text: str) -> Markup:
    r"""Return a sentence with the names in it, which stand in quotes, set off as bold.

    >>> print(sentence("'a<b' over \"it's\", the prior's"))
    <b><bdi>a&lt;b</bdi></b> over <b><bdi>it&#x27;s</bdi></b>, the prior&#x27;s
    """
    pieces = _QUOTED.split(text)
    return join([_name(piece) if place % 2 else piece for place, piece in enumerate(pieces)])


def _name(literal: str) -> Markup:
    return tag("b", item(ast.literal_eval(literal)))
