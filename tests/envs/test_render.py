"""Pictures and films: sizes, what stands where, files that can be read again, and refusals that help."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from diffplan.envs import colours, render, scene, video
from diffplan.envs.maze import MAZES
from diffplan.envs.tasks import Task, find_task
from diffplan.planner.plan import Plan
from diffplan.planner.spec import TrajectorySpec

TASKS = ("maze2d-umaze", "maze2d-large", "open", "hopper")


def make_task(name: str) -> Task:
    """A maze, a plane without a maze, or a task without positions."""
    if name == "open":
        spec = TrajectorySpec(("ax", "ay"), ("vx", "x", "vy", "y"), ("x", "y"), ("vx", "vy"), 0.02, 3)
        return Task(name, "none", "none", spec, horizon=16)
    if name == "hopper":
        spec = TrajectorySpec(("a", "b"), tuple(f"q{i}" for i in range(5)), (), (), 0.008, 1)
        return Task(name, "none", "none", spec, horizon=16)
    return find_task(name)


def make_plan(task: Task, candidates: int = 3) -> Plan:
    """Straight lines from near the first free cell's centre to the next free cells', or sines."""
    spec, tokens = task.spec, task.horizon
    u = np.minimum(np.arange(tokens) / (tokens - 4), 1.0)
    made = np.zeros((candidates, tokens, spec.width), np.float32)
    made[..., spec.observations] = np.sin(3 * u)[None, :, None] * np.arange(1, candidates + 1)[:, None, None]
    if spec.position:
        start, goal = ends(task)
        for k in range(candidates):
            bend = 0.03 * k * np.sin(np.pi * u)[:, None]
            made[k][:, spec.position_columns] = start + u[:, None] * (goal - start) + bend
            made[k][:, spec.velocity_columns] = (goal - start) / (tokens - 4) / spec.token_seconds
    made[..., spec.arrived] = np.where(np.arange(tokens) < tokens - 4, -1, 1)
    zeros = np.zeros(candidates)
    return Plan(spec, made, np.full(candidates, tokens - 4), zeros, zeros, zeros)


def ends(task: Task) -> tuple[Any, Any]:
    """Start and goal, two free cells beside each other; None for a task without positions."""
    if not task.spec.position:
        return None, None
    if task.name == "open":
        return np.array([0.0, 0.0]), np.array([3.0, 1.0])
    maze = task.maze  # type: ignore[attr-defined]
    return maze.center((1, 1)), maze.center((1, 3))


def make_film(plan: Plan, steps: int = 4) -> list[np.ndarray]:
    noise = np.random.default_rng(0).normal(size=plan.trajectories.shape)
    return [(1 - i / steps) * noise + i / steps * plan.trajectories for i in range(steps + 1)]


def films(task: Task) -> dict[str, list[np.ndarray]]:
    """Every kind of film of a task."""
    plan, (start, goal) = make_plan(task), ends(task)
    states = plan.reference(np.arange(41)).observation
    ahead = plan.positions[0] if task.spec.position else None
    return {
        "plan": list(render.plan_frames(task, plan, start=start, goal=goal, count=12)),
        "film": list(render.film_frames(task, make_film(plan), start=start, goal=goal)),
        "rollout": list(render.rollout_frames(task, states, lambda step: ahead, goal=goal, every=4)),
    }


def close_to(picture: np.ndarray, colour: str, tolerance: float = 3.0) -> np.ndarray:
    """(h, w) true where a picture has a colour."""
    return (np.abs(picture.astype(float) - 255 * np.array(to_rgb(colour))) <= tolerance).all(axis=-1)


@pytest.mark.parametrize("name", TASKS)
class TestEveryTask:
    def test_picture(self, name: str) -> None:
        task = make_task(name)
        start, goal = ends(task)
        picture = render.plan_picture(task, make_plan(task), start=start, goal=goal, title=name)
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        assert (picture[[0, -1]] == 255).all()  # a white page
        assert (picture[:, [0, -1]] == 255).all()
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50

    def test_frames_have_one_even_size_and_move(self, name: str) -> None:
        for kind, frames in films(make_task(name)).items():
            sizes = {f.shape for f in frames}
            assert len(sizes) == 1, kind
            height, width, colours = sizes.pop()
            assert (height % 2, width % 2, colours) == (0, 0, 3), kind
            assert (frames[0] != frames[len(frames) // 3]).any(), kind
            held = frames[-render.HELD_FRAMES - 1 :]
            assert all((f == held[0]).all() for f in held), kind

    def test_same_input_same_picture(self, name: str) -> None:
        task = make_task(name)
        one, two = films(task), films(task)
        assert all((a == b).all() for kind in one for a, b in zip(one[kind], two[kind], strict=True))


@pytest.mark.parametrize("size", MAZES)
def test_walls_are_dark_and_free_cells_light_where_the_maze_says_so(size: str) -> None:
    task = find_task(f"maze2d-{size}")
    plan, (start, goal) = make_plan(task), ends(task)
    picture = render.plan_picture(task, plan, start=start, goal=goal)
    drawn = scene.Scene(task, np.zeros((1, 4)), 1.0, title="", scale=scene.PICTURE_SCALE)
    to_pixel = drawn.panels[0].transData
    rows, columns = task.maze.walls.shape  # type: ignore[attr-defined]
    for row in range(1, rows - 1):
        for column in range(1, columns - 1):
            x, y = to_pixel.transform(task.maze.center((row, column)) + 0.35)  # type: ignore[attr-defined]
            pixel = picture[len(picture) - 1 - int(y) : len(picture) - int(y), int(x) : int(x) + 1]
            wall = bool(task.maze.walls[row, column])  # type: ignore[attr-defined]
            assert close_to(pixel, colours.WALL if wall else colours.FREE).all(), (row, column)


def test_marks_stand_where_they_should() -> None:
    task = find_task("maze2d-umaze")
    start, goal = task.maze.center((3, 1)), task.maze.center((1, 1))  # type: ignore[attr-defined]
    via, disc = task.maze.center((2, 3)), (0.9, -0.9, 0.3)  # type: ignore[attr-defined]
    picture = render.plan_picture(task, make_plan(task), start=[*start, 0, 0], goal=goal, vias=[via], discs=[disc])
    to_pixel = scene.Scene(task, np.zeros((1, 4)), 1.0, title="", scale=2).panels[0].transData
    for point, colour in ((start, colours.START), (goal, colours.GOAL), (via, colours.VIA)):
        where = np.argwhere(close_to(picture, colour))
        x, y = to_pixel.transform(point)
        assert len(where) > 50
        assert np.abs(np.median(where, axis=0) - [len(picture) - y, x]).max() < 6
    x, y = to_pixel.transform(disc[:2])
    red, green, blue = (int(v) for v in picture[len(picture) - int(y), int(x)])
    assert red > green + 25
    assert red > blue + 15
    assert green > 150  # the page shows through


def test_plan_is_drawn_until_it_arrives_and_smooth() -> None:
    task = find_task("maze2d-umaze")
    plan = make_plan(task)
    observations, seconds = render._path(plan, 0)
    assert len(observations) == len(seconds) == plan.steps + 1
    assert seconds[-1] == pytest.approx(plan.duration_seconds)
    assert observations[:, :2] == pytest.approx(plan.reference(np.arange(plan.steps + 1)).position)


def test_plan_that_has_arrived_is_still_a_picture() -> None:
    task = find_task("maze2d-umaze")
    plan, (start, goal) = make_plan(task), ends(task)
    there = Plan(plan.spec, plan.trajectories, plan.arrivals * 0, plan.scores, plan.consistency, plan.implausibility)
    assert render.plan_picture(task, there, start=start, goal=goal).size
    assert len(list(render.plan_frames(task, there, start=start, goal=goal, count=5))) == 5 + render.HELD_FRAMES


def test_film_shows_every_step() -> None:
    task = find_task("maze2d-umaze")
    plan, (start, goal) = make_plan(task), ends(task)
    film = make_film(plan, 4)
    for between in (0, 2):
        frames = list(render.film_frames(task, film, start=start, goal=goal, between=between))
        assert len(frames) == 1 + 4 * (1 + between) + render.HELD_FRAMES
    alone = list(render.film_frames(task, film[-1:], start=start, goal=goal))
    assert len(alone) == 1 + render.HELD_FRAMES
    with pytest.raises(ValueError, match="film is empty"):
        next(render.film_frames(task, [], start=start, goal=goal))


def test_drawn_steps() -> None:
    assert render.drawn_steps(10, 4) == [0, 4, 8, 10]
    assert render.drawn_steps(8, 4) == [0, 4, 8]
    assert render.drawn_steps(0) == [0]
    for steps in (1, 59, 60, 61, 300, 800):
        drawn = render.drawn_steps(steps)
        assert drawn[0] == 0
        assert drawn[-1] == steps
        assert len(drawn) <= 62


def test_rollout_beside_the_simulator() -> None:
    task = find_task("maze2d-umaze")
    plan, (_, goal) = make_plan(task), ends(task)
    states = plan.reference(np.arange(21)).observation
    red = np.zeros((101, 77, 3), np.uint8)
    red[..., 0] = 250
    drawn = render.drawn_steps(20, 10)

    def frames(count: int) -> list[np.ndarray]:
        pictures = (red for _ in range(count))
        return list(render.rollout_frames(task, states, lambda s: None, goal=goal, frames=pictures, every=10))

    alone = next(render.rollout_frames(task, states, lambda s: None, goal=goal, every=10))
    beside = frames(len(drawn))
    height, width, _ = beside[0].shape
    assert (height, width % 2) == (len(alone), 0)
    assert (beside[0][:, width - alone.shape[1] :] == alone).all()
    rows, columns = np.nonzero(close_to(beside[0], "#fa0000"))
    assert np.ptp(rows) + 1 == height - scene.TITLE - scene.FOOT
    assert (np.ptp(columns) + 1) / (np.ptp(rows) + 1) == pytest.approx(77 / 101, abs=0.01)
    with pytest.raises(ValueError, match="one for each of the 3 drawn_steps"):
        frames(2)


def test_rollout_tells_the_return_or_the_steps_at_the_goal() -> None:
    task = find_task("maze2d-umaze")
    goal = np.array([1.0, 1.0])
    states = np.array([[-1.0, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]])
    assert render._progress(task, states, goal, None)(2) == "step 2/2   0.02 s   at the goal for 2 steps"
    assert render._progress(task, states, goal, [0.5, 1.25])(2) == "step 2/2   0.02 s   return 1.75"
    assert render._progress(task, states, None, None)(1) == "step 1/2   0.01 s"


def test_speed() -> None:
    task = find_task("maze2d-large")
    plan, (start, goal) = make_plan(task, candidates=16), ends(task)
    begun = time.process_time()
    render.plan_picture(task, plan, start=start, goal=goal)
    assert time.process_time() - begun < 1.0
    frames = render.film_frames(task, make_film(plan), start=start, goal=goal)
    next(frames)
    begun = time.process_time()
    count = len(list(frames))
    assert (time.process_time() - begun) / count < 0.06


def test_picture_is_read_again(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (30, 41, 3), dtype=np.uint8)
    video.save_picture(tmp_path / "a.PNG", picture)
    assert (iio.imread(tmp_path / "a.PNG") == picture).all()


def test_videos_are_read_again(tmp_path: Path) -> None:
    frames = [np.full((40, 60, 3), 255, np.uint8) for _ in range(11)]
    for i, frame in enumerate(frames):
        frame[10:20, 4 * i : 4 * i + 10] = (200, 30, 60)
    for suffix in (".gif", ".mp4"):
        path = tmp_path / f"film{suffix}"
        video.save_video(path, iter(frames), fps=10)
        back = iio.imread(path, index=None, plugin="pillow" if suffix == ".gif" else "FFMPEG")
        assert back.shape == (11, 40, 60, 3)
        assert np.abs(back.astype(int) - np.array(frames)).mean() < 4
    details = iio.immeta(tmp_path / "film.gif")
    assert details["loop"] == 0
    assert details["duration"] == 100
    assert sorted(os.listdir(tmp_path)) == ["film.gif", "film.mp4"]


def test_odd_sizes_are_cropped_for_mp4(tmp_path: Path) -> None:
    video.save_video(tmp_path / "a.mp4", [np.zeros((41, 63, 3), np.uint8)] * 3, fps=5)
    assert iio.imread(tmp_path / "a.mp4", index=None, plugin="FFMPEG").shape == (3, 40, 62, 3)


def test_gifs_are_small_and_keep_the_page_white(tmp_path: Path) -> None:
    task = find_task("maze2d-umaze")
    plan, (start, goal) = make_plan(task, candidates=16), ends(task)
    states = plan.reference(np.arange(301) // 3).observation
    kinds = {
        "film": render.film_frames(task, make_film(plan, 8), start=start, goal=goal),
        "rollout": render.rollout_frames(task, states, lambda s: plan.positions[0], goal=goal),
    }
    for kind, frames in kinds.items():
        path = tmp_path / f"{kind}.gif"
        video.save_video(path, frames, fps=20)
        assert path.stat().st_size < 2_000_000, kind
        back = iio.imread(path, index=0)
        assert (back[0] == 255).all()
        assert close_to(back, colours.WALL, 0).mean() > 0.2
        assert close_to(back, colours.FREE, 0).mean() > 0.2


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_nothing_is_half_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("what was there before")

    def broken() -> Any:
        yield np.zeros((20, 20, 3), np.uint8)
        raise RuntimeError("the simulator fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        video.save_video(path, broken(), fps=10)
    with pytest.raises(ValueError, match="no frames"):
        video.save_video(path, [], fps=10)
    assert path.read_text() == "what was there before"
    assert os.listdir(tmp_path) == [path.name]


def test_outputs_are_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert video.check_output(tmp_path / "a.json") == tmp_path / "a.json"
    with pytest.raises(ValueError, match=r"a\.jpg ends in '\.jpg'; use one of \.png, \.gif, \.mp4, \.json"):
        video.check_output(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="ends in 'nothing'"):
        video.check_output(tmp_path / "a")
    with pytest.raises(ValueError, match="mkdir -p"):
        video.check_output(tmp_path / "missing" / "a.png")
    with pytest.raises(ValueError, match="is a folder; name a file in it"):
        video.check_output(tmp_path)
    with pytest.raises(ValueError, match=r"use one of \.gif, \.mp4"):
        video.save_video(tmp_path / "a.png", [], fps=10)
    with pytest.raises(ValueError, match=r"use one of \.png"):
        video.save_picture(tmp_path / "a.gif", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="fps=0 must be positive"):
        video.save_video(tmp_path / "a.gif", [], fps=0)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match="cannot be written; choose another"):
        video.check_output(tmp_path / "a.png")
    assert not os.listdir(tmp_path)


def test_no_global_figures_are_made() -> None:
    script = "import sys, diffplan.envs.render; print('matplotlib.pyplot' in sys.modules, 'mujoco' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False False", done.stderr
