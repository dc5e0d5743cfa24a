"""Words that fit into the room they have."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text


def shorten(text: Text, room: float) -> None:
    """Let words that are wider than `room`, in pixels of the figure, end in an ellipsis."""
    words = text.get_text()

    def width(kept: int) -> float:
        text.set_text(words[:kept].rstrip(" +,:=") + "…" * (kept < len(words)))
        return text.get_window_extent().width

    if text.get_window_extent().width > room:
        width(max(0, bisect_right(range(len(words)), room, key=width) - 1))


def shrink(text: Text, room: float) -> None:
    """Make words smaller that are wider than `room`, in pixels of the figure."""
    width = text.get_window_extent().width
    text.set_fontsize(float(text.get_fontsize()) * min(1.0, room / width))


def write_key(figure: Figure, colours: Mapping[str, str], x: float, y: float, *, from_right: bool = False) -> None:
    """What colours mean: words in them, one after the other.

    Args:
        figure: where to.
        colours: of each of the words.
        x, y: pixels of the figure at which they begin, or end, and their middle.
        from_right: `x` is where they end.
    """
    width, height = figure.bbox.width, figure.bbox.height
    look: dict[str, Any] = {"va": "center", "fontsize": 8.5, "parse_math": False}
    words = [figure.text(0, y / height, text, color=colour, **look) for text, colour in colours.items()]
    widths = [text.get_window_extent().width + 0.11 * figure.dpi for text in words]  # with a gap
    left = x - sum(widths) + 0.11 * figure.dpi if from_right else x
    for text, before in zip(words, accumulate(widths, initial=0.0), strict=False):
        text.set_x((left + before) / width)
