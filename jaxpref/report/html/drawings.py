"""What the figures share: colours by role, the frame around a drawing, points that can be asked.

Every colour is a class that the style sheet defines twice, for light and for dark. No meaning is
carried by colour alone: roles differ in shape, width or dashes as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .elements import Content, Markup, tag

Real = float | int


class Mark(NamedTuple):
    """An entry of a legend: a small drawing, and what it stands for."""

    drawing: Content
    text: str


def drawing(width: Real, height: Real, *contents: Content, label: str, class_: str) -> Markup:
    """Return an SVG that takes the width there is."""
    return tag(
        "svg",
        *contents,
        viewBox=f"0 0 {width:g} {height:g}",
        role="group",
        aria_label=label,
        class_=f"drawing {class_}",
    )


def figure(drawn: Markup, *, caption: Content, marks: Sequence[Mark] = ()) -> Markup:
    """Return a drawing with its legend and caption."""
    legend = [
        tag(
            "li",
            tag("svg", mark.drawing, viewBox="0 0 28 14", aria_hidden="true", class_="mark"),
            mark.text,
        )
        for mark in marks
    ]
    return tag(
        "figure",
        tag("ul", legend, class_="legend") if legend else None,
        tag("div", drawn, class_="canvas"),
        tag("figcaption", caption),
    )


def asked(name: str, tip: str, *contents: Content, **attributes: object) -> Markup:
    """Return a shape that tells something on hover, touch and focus."""
    return tag(name, *contents, data_tip=tip, role="img", aria_label=tip, **attributes)


def text(x: Real, y: Real, *contents: Content, class_: str = "", **attributes: object) -> Markup:
    """Return text in a drawing."""
    return tag("text", *contents, x=f"{x:.1f}", y=f"{y:.1f}", class_=class_ or None, **attributes)


def line(x1: Real, y1: Real, x2: Real, y2: Real, class_: str) -> Markup:
    """Return a line in a drawing."""
    ends = dict(zip(("x1", "y1", "x2", "y2"), (f"{v:.1f}" for v in (x1, y1, x2, y2)), strict=True))
    return tag("line", class_=class_, **ends)
