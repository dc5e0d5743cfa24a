"""The colours that every picture shares."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap, to_rgba

WALL, FREE, INK, GREY, AHEAD = "#37424f", "#f5f6f8", "#2b333d", "#aab3bf", "#c3cad3"
GOAL, START, AGENT, AVOID, VIA = "#f5b700", "#46327e", "#e4572e", "#d62839", "#2a9d8f"
TIME_COLOURS = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.95, 256)))
SPEED_COLOURS = ListedColormap(matplotlib.colormaps["plasma"](np.linspace(0, 0.84, 256)))


def rgba(colour: str) -> tuple[float, float, float, float]:
    """As MuJoCo reads it."""
    red, green, blue, alpha = to_rgba(colour)
    return red, green, blue, alpha
