import pytest
import torch

from diffplan.benchmarks.ship import MOST_BYTES, ship
from diffplan.envs.runs import SHIPPED, load_planner, read_record
from diffplan.envs.tasks import find_task


def test_shipping_halves_a_run_and_keeps_its_record(run_folder, tmp_path):
    size = ship(run_folder, tmp_path / "shipped")
    assert size <= MOST_BYTES
    planner, task = load_planner(tmp_path / "shipped")
    original, _ = load_planner(run_folder)
    assert task is find_task("maze2d") and read_record(tmp_path / "shipped") == read_record(run_folder)
    for one, other in zip(planner.denoiser.parameters(), original.denoiser.parameters(), strict=True):
        torch.testing.assert_close(one, other.half().float(), rtol=0, atol=0)


@pytest.mark.parametrize("goal", [(1.0, 1.0), (1.0, -1.0), (-1.0, -1.0), (0.0, 1.0)])
def test_the_shipped_planner_plans_well(goal):
    """What a newcomer sees first: from the far corner, clear of the walls, ending exactly at the goal."""
    planner, task = load_planner(SHIPPED)
    plan = planner.plan(planner.problem([-1.0, 1.0, 0.0, 0.0], goal), generator=torch.Generator().manual_seed(0))
    assert task.feasible(plan)[0]
    assert plan.positions[0, -1] == pytest.approx(goal, abs=1e-6)
    cells = len(task.maze.route((1, 1), task.maze.cell(goal))) - 1
    assert cells / 5 - 0.2 < plan.duration_seconds < 2.5 * cells / 5 + 0.3  # no faster than 5 m/s per axis
