"""How true a return model is: numbers and a picture for the run folder.

Shape letters: n windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from diffplan.planner.normalizer import Normalizer
from diffplan.planner.returns import Calibration, ReturnModel, calibrate
from diffplan.planner.windows import Windows

from .colours import GREY, INK, START
from .records import write_json

PANELS = 4  # noise levels that are drawn, the clean one among them
BINS = 10


def report_calibration(
    folder: Path, model: ReturnModel, held_out: Windows, normalizer: Normalizer, alphas_cumprod: Tensor
) -> float:
    """Write returns_calibration.json and .png; R2 on clean windows."""
    rows = calibrate(model, held_out, normalizer, alphas_cumprod)
    write_json(
        folder / "returns_calibration.json",
        {
            "discount": held_out.discount,
            "windows": len(rows[0].true),
            "return_mean": round(float(rows[0].true.mean()), 4),
            "return_std": round(float(rows[0].true.std(correction=0)), 4),
            "r2_clean": round(rows[0].r2, 4),
            "r2_by_timestep": [round(row.r2, 4) for row in rows[1:]],
            "signal_by_timestep": [round(float(level) ** 0.5, 4) for level in alphas_cumprod],
            "deciles_clean": _deciles(rows[0]),
        },
    )
    _draw(rows, folder / "returns_calibration.png")
    return rows[0].r2


def _deciles(row: Calibration) -> list[dict[str, float]]:
    """Mean predicted and mean true return of windows sorted by what was predicted, in tenths."""
    best = np.argsort(row.predicted.numpy())
    return [
        {
            "predicted": round(float(row.predicted.numpy()[part].mean()), 4),
            "true": round(float(row.true.numpy()[part].mean()), 4),
        }
        for part in np.array_split(best, BINS)
    ]


def _draw(rows: Sequence[Calibration], path: Path) -> None:
    """True against predicted returns at a few noise levels, and R2 over all of them."""
    noisy = rows[1:]
    shown = [rows[0], *(noisy[round(i * (len(noisy) - 1) / (PANELS - 1))] for i in range(1, PANELS))]
    figure = Figure(figsize=(3 * (PANELS + 1), 3.1), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, PANELS + 1)
    low, high = float(rows[0].true.min()), float(rows[0].true.max())
    for axes, row in zip(panels, shown, strict=False):
        axes.plot([low, high], [low, high], color=GREY, linewidth=1)
        axes.scatter(row.predicted, row.true, s=3, alpha=0.25, color=START, linewidths=0)
        name = "clean windows" if row.timestep is None else f"noise level {row.timestep} of {len(noisy) - 1}"
        axes.set_title(f"{name}, R\u00b2 {row.r2:.2f}", fontsize=9, color=INK)
        axes.set_xlabel("predicted return", fontsize=8)
    panels[0].set_ylabel("true return", fontsize=8)
    panels[-1].plot(range(len(noisy)), [row.r2 for row in noisy], color=START)
    panels[-1].set(ylim=(min(0.0, *(row.r2 for row in noisy)), 1))
    panels[-1].set_title("R\u00b2 by noise level", fontsize=9, color=INK)
    panels[-1].set_xlabel("training timestep", fontsize=8)
    for axes in panels:
        axes.tick_params(labelsize=7)
    figure.savefig(path)
