"""What a plan promised against what came of it: predicted and realised returns of one executed episode.

Shape letters: T steps, n replanning steps.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from diffplan.planner.episodes import Episodes
from diffplan.planner.windows import endless_tails, returns_to_go

from .colours import AGENT, GREY, INK, START
from .lettering import shorten
from .video import Picture

Array = NDArray[np.float64]

INCHES, DPI = (6.4, 3.2), 110  # an even number of pixels


def realised_returns(rewards: ArrayLike, discount: float, *, ended: bool = True) -> Array:
    """Discounted sum (T,) of an episode's rewards (T,) from each step to its end, as return models are taught it.

    Args:
        rewards: of each step.
        discount: per step.
        ended: whether the episode ended, rather than was cut: then it counts as going on (`windows.endless_tails`).

    Raises:
        ValueError: no rewards, or the discount does not lie between 0 and 1 (excluded).
    """
    gains = np.ravel(np.asarray(rewards, dtype=float))
    nothing = np.zeros((len(gains) + 1, 1))
    lived = Episodes.from_arrays([nothing], [nothing[1:]], [gains], [ended])
    return np.asarray(returns_to_go(lived, discount, tails=endless_tails(lived, discount))[:-1])


def returns_picture(
    predicted: ArrayLike, realised: ArrayLike, *, steps: ArrayLike | None = None, title: str = ""
) -> Picture:
    """Both returns over time, and one against the other.

    Args:
        predicted: (n,) discounted returns of the plans, in reward units.
        realised: (n,) `realised_returns` from the same steps.
        steps: (n,) at which they were planned; 0 to n - 1 if left out.
        title: a few words above; cut short, with an ellipsis, where they do not fit.

    Returns:
        (h, w, 3).

    Raises:
        ValueError: nothing to draw, or lengths that differ.
    """
    promised, gained = np.ravel(np.asarray(predicted, dtype=float)), np.ravel(np.asarray(realised, dtype=float))
    when = np.arange(len(promised)) if steps is None else np.ravel(np.asarray(steps))
    if not len(promised) or not len(promised) == len(gained) == len(when):
        raise ValueError(
            f"{len(promised)} predicted and {len(gained)} realised returns at {len(when)} steps; "
            "give as many of each, at least one"
        )
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    over_time, against = figure.subplots(1, 2, width_ratios=(1.5, 1))
    _draw_over_time(over_time, when, promised, gained)
    _draw_against(against, promised, gained)
    for axes in (over_time, against):
        axes.tick_params(labelsize=7)
    if title:
        headline = figure.suptitle(title, fontsize=10.5, color=INK, parse_math=False)
        shorten(headline, 0.96 * figure.bbox.width)
    canvas.draw()
    return np.array(np.asarray(canvas.buffer_rgba())[..., :3])


def _draw_over_time(axes: Axes, steps: NDArray[np.generic], predicted: Array, realised: Array) -> None:
    marker = "o" if len(steps) == 1 else ""
    axes.plot(steps, realised, color=AGENT, linewidth=1.4, marker=marker, label="realised")
    axes.plot(steps, predicted, color=START, linewidth=1.4, marker=marker, label="predicted")
    axes.set_title(f"return to go, mean error {np.mean(predicted - realised):+.3g}", fontsize=9, color=INK)
    axes.set_xlabel("step", fontsize=8)
    axes.set_ylabel("discounted return", fontsize=8)
    axes.legend(fontsize=7, frameon=False, labelcolor=INK)


def _draw_against(axes: Axes, predicted: Array, realised: Array) -> None:
    """Realised over predicted, with the diagonal on which they agree."""
    ends = [min(predicted.min(), realised.min()), max(predicted.max(), realised.max())]
    axes.plot(ends, ends, color=GREY, linewidth=1)
    axes.scatter(predicted, realised, s=8, alpha=0.5, color=START, linewidths=0)
    varied = len(predicted) > 1 and predicted.std() > 0 and realised.std() > 0
    words = f", correlation {np.corrcoef(predicted, realised)[0, 1]:.2f}" if varied else ""
    axes.set_title(f"each plan{words}", fontsize=9, color=INK)
    axes.set_xlabel("predicted return", fontsize=8)
    axes.set_ylabel("realised return", fontsize=8)
