"""Words that fit into the room they have."""

from __future__ import annotations

from bisect import bisect_right

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
