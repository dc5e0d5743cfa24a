"""What a plan asks for, as pictures and files have it.

Shape letters: n steps, O observations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffplan.planner.plan import Plan

Array = NDArray[np.floating[Any]]


def planned_observations(plan: Plan, candidate: int = 0) -> Array:
    """(n, O) at every environment step from a plan's beginning until a candidate arrives; two rows at least."""
    steps = np.arange(max(1, plan.arrival_steps(candidate)) + 1)
    asked = plan.reference(steps, candidate)
    observations = np.array(asked.observation, dtype=float)
    observations[:, plan.spec.position_indices] = asked.position  # smooth between tokens
    return observations
