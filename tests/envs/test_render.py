"""Pictures and films: sizes, what stands where, files that can be read again, and refusals that help."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from diffplan.envs import colours, render, scene, video
from diffplan.envs.maze import MAZES
from diffplan.envs.tasks import Task, find_task
from diffplan.planner.guides.marks import Box, Disc, Mark, SpeedLimit, Spot
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


def pixel_of(drawn: scene.Scene, point: Any) -> np.ndarray:
    """Row and column of a point (2,) in a scene's picture."""
    x, y = drawn.panels[0].transData.transform(point)
    return np.array([drawn.figure.bbox.height - y, x]).astype(int)


def umaze_pixel(point: Any) -> np.ndarray:
    return pixel_of(scene.Scene(find_task("maze2d-umaze"), np.zeros((1, 4)), 1.0, title="", scale=2), point)


def reddened(picture: np.ndarray) -> np.ndarray:
    """(h, w) true where translucent red lies on a light page."""
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return (red > green + 25) & (red > blue + 15) & (green > 150)


def test_marks_stand_where_they_should() -> None:
    task = find_task("maze2d-umaze")
    start, goal = task.maze.center((3, 1)), task.maze.center((1, 1))  # type: ignore[attr-defined]
    via = task.maze.center((2, 3))  # type: ignore[attr-defined]
    marks = [Spot(*via), Disc(0.9, -0.9, 0.3)]
    picture = render.plan_picture(task, make_plan(task), start=[*start, 0, 0], goal=goal, marks=marks)
    for point, colour in ((start, colours.START), (goal, colours.GOAL), (via, colours.VIA)):
        where = np.argwhere(close_to(picture, colour))
        assert len(where) > 50
        assert np.abs(np.median(where, axis=0) - umaze_pixel(point)).max() < 6
    assert reddened(picture)[tuple(umaze_pixel((0.9, -0.9)))]  # the page shows through
    assert not reddened(picture)[tuple(umaze_pixel((0.9, -0.5)))]


@pytest.mark.parametrize("mark", [Box(0.2, 1.05, 0.6, 0.5), Disc(0.2, 1.05, 0.25)])
def test_places_are_red_inside_and_nowhere_else(mark: Box | Disc) -> None:
    task = find_task("maze2d-umaze")
    start, goal = task.maze.center((3, 1)), task.maze.center((3, 3))  # type: ignore[attr-defined]
    plan = make_plan(task, candidates=1)
    path = plan.trajectories[:, :, plan.spec.position_columns]
    plan.trajectories[:, :, plan.spec.position_columns] = path * [1, -1]  # along the other corridor
    looks: dict[str, Any] = {"start": start, "goal": goal}
    picture = render.plan_picture(task, plan, **looks, marks=[mark])
    changed = (picture != render.plan_picture(task, plan, **looks)).any(axis=-1)
    wide, tall = (mark.width, mark.height) if isinstance(mark, Box) else (2 * mark.radius, 2 * mark.radius)
    top, left = umaze_pixel((mark.x - wide / 2, mark.y + tall / 2))
    bottom, right = umaze_pixel((mark.x + wide / 2, mark.y - tall / 2))
    rows, columns = np.nonzero(changed)
    assert np.abs([rows.min() - top, rows.max() - bottom, columns.min() - left, columns.max() - right]).max() <= 3
    assert close_to(picture, colours.AVOID, 12).sum() > 2 * (bottom - top)  # an edge
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    if isinstance(mark, Box):
        inside = (y > top + 3) & (y < bottom - 3) & (x > left + 3) & (x < right - 3)
    else:
        middle, radius = umaze_pixel((mark.x, mark.y)), (right - left) / 2
        inside = np.hypot(y - middle[0], x - middle[1]) < radius - 3
        assert not changed[np.hypot(y - middle[0], x - middle[1]) > radius + 3].any()
    assert reddened(picture)[inside].all()
    assert changed[inside].all()


def test_the_view_holds_every_mark() -> None:
    task = make_task("open")
    marks = [Box(1, -2, 1, 3), Spot(5, 0.5), Disc(-1, 3, 0.5), SpeedLimit(1.0)]
    axes = scene.Scene(task, np.zeros((1, 4)), 1.0, title="", marks=marks, goal=[3, 1]).panels[0]
    assert axes.get_xlim()[0] < -1.5 and axes.get_xlim()[1] > 5
    assert axes.get_ylim()[0] < -3.5 and axes.get_ylim()[1] > 3.5


def at_speed(task: Task, metres_per_second: float) -> Plan:
    """One candidate, straight from the first free cell's centre to the next, that claims a constant speed along x."""
    plan = make_plan(task, candidates=1)
    plan.trajectories[..., plan.spec.velocity_columns] = [metres_per_second, 0.0]
    return plan


def path_colour(picture: np.ndarray) -> np.ndarray:
    """Of the path of `make_plan` in its middle, in umaze, as shares of full red, green and blue."""
    row, column = umaze_pixel((0.0, 1.0))
    return picture[row, column] / 255


def titles(drawn: scene.Scene) -> list[str]:
    return [axes.get_title() for axes in drawn.figure.axes]


def test_a_speed_limit_colours_plans_by_speed() -> None:
    task = find_task("maze2d-umaze")
    start, goal = ends(task)
    looks: dict[str, Any] = {"start": start, "goal": goal}
    limit = [SpeedLimit(2.0)]
    tops = {0.5: 2.1, 1.5: 2.1, 4.0: 4.2}  # max(limit, fastest) * 1.05
    for speed, top in tops.items():
        plan = at_speed(task, speed)
        assert render.colour_top(task, plan, limit) == pytest.approx(top)
        picture = render.plan_picture(task, plan, **looks, marks=limit)
        assert path_colour(picture) == pytest.approx(colours.SPEED_COLOURS(speed / top)[:3], abs=0.02)
        *_, frame = render.plan_frames(task, plan, **looks, marks=limit, count=3)
        middle = pixel_of(scene.Scene(task, np.zeros((1, 4)), 1.0, title=""), (0.0, 1.0))
        assert frame[tuple(middle)] / 255 == pytest.approx(colours.SPEED_COLOURS(speed / top)[:3], abs=0.02)
    by_time = [path_colour(render.plan_picture(task, at_speed(task, s), **looks)) for s in (0.5, 1.5)]
    assert (by_time[0] == by_time[1]).all()  # as without a limit


def test_speeds_are_those_of_the_execution() -> None:
    task = find_task("maze2d-umaze")
    start, goal = ends(task)
    looks: dict[str, Any] = {"start": start, "goal": goal, "marks": [SpeedLimit(2.0)]}
    slow, fast = at_speed(task, 1.0), at_speed(task, 3.0)
    assert render.colour_top(task, slow, looks["marks"], 3.0) == pytest.approx(3.15)
    quicker = render.plan_picture(task, slow, **looks, tempo=3.0)
    assert path_colour(quicker) == pytest.approx(path_colour(render.plan_picture(task, fast, **looks)), abs=0.01)
    states = slow.reference(np.arange(30)).observation
    assert render.colour_top(task, states, looks["marks"], 3.0) == pytest.approx(2.1)  # executed: as they are


def test_the_bar_tells_what_colours_mean() -> None:
    task, marks = find_task("maze2d-umaze"), [SpeedLimit(3.0), SpeedLimit(1.5)]
    plan, (_, goal) = at_speed(task, 2.0), ends(task)

    def bar(marks: list[SpeedLimit]) -> tuple[Any, scene.Scene]:
        drawn, *_ = render._plan_scene(task, plan, marks, goal, "", tempo=1.0, scale_to=None)
        return drawn.figure.axes[-1], drawn

    by_speed, drawn = bar(marks)
    assert "m/s" in titles(drawn) and "s" not in titles(drawn)
    assert [text.get_text() for text in by_speed.texts] == ["≤1.5"]  # of two, the lower
    assert by_speed.lines[0].get_ydata() == pytest.approx([1.5, 1.5])
    assert by_speed.get_ylim() == pytest.approx((0, 2.1))
    by_time, drawn = bar([])
    assert "s" in titles(drawn) and "m/s" not in titles(drawn)
    assert not by_time.texts and not by_time.lines
    assert by_time.get_ylim() == pytest.approx((0, plan.duration_seconds))


@pytest.mark.parametrize("limit", [0.333, 1.25, 12.5, 1234.5])
def test_the_limit_stays_on_the_page(limit: float) -> None:
    task = find_task("maze2d-umaze")
    start, goal = ends(task)
    picture = render.plan_picture(task, at_speed(task, 2.0), start=start, goal=goal, marks=[SpeedLimit(limit)])
    assert (picture[:, -2:] == 255).all()
    assert (picture[:, -40:] != 255).any()


def test_films_and_tasks_over_time_are_coloured_by_time() -> None:
    limit: list[Mark] = [SpeedLimit(1.0)]
    maze, hopper = find_task("maze2d-umaze"), make_task("hopper")
    start, goal = ends(maze)
    film = make_film(make_plan(maze), 1)
    films = [list(render.film_frames(maze, film, start=start, goal=goal, marks=marks)) for marks in ([], limit)]
    assert (films[0][-1] == films[1][-1]).all()
    plan = make_plan(hopper)
    pictures = [render.plan_picture(hopper, plan, start=None, goal=None, marks=marks) for marks in ([], limit)]
    assert (pictures[0] == pictures[1]).all()
    assert render.colour_top(hopper, plan, limit) == pytest.approx(plan.duration_seconds)


def test_rollouts_show_spots_and_executed_speeds() -> None:
    task = find_task("maze2d-umaze")
    goal = task.maze.center((3, 3))  # type: ignore[attr-defined]
    via = task.maze.center((2, 3))  # type: ignore[attr-defined]
    states = np.stack([np.linspace(-1, 1, 101), np.ones(101), np.linspace(0, 4, 101), np.zeros(101)], axis=1)
    marks = [Spot(*via), SpeedLimit(1.0)]
    assert render.colour_top(task, states, marks) == pytest.approx(4.2)
    *_, frame = render.rollout_frames(task, states, lambda s: None, goal=goal, marks=marks, every=50)
    *_, timed = render.rollout_frames(task, states, lambda s: None, goal=goal, marks=marks[:1], every=50)
    drawn = scene.Scene(task, states, 1.0, title="")
    for x in (-0.5, 0.0, 0.5):
        at = tuple(pixel_of(drawn, (x, 1.0)))
        share = (x + 1) / 2
        assert frame[at] / 255 == pytest.approx(colours.SPEED_COLOURS(4 * share / 4.2)[:3], abs=0.03)
        assert timed[at] / 255 == pytest.approx(colours.TIME_COLOURS(share)[:3], abs=0.03)
    where = np.argwhere(close_to(frame, colours.VIA))
    assert np.abs(np.median(where, axis=0) - pixel_of(drawn, via)).max() < 4


def test_two_pictures_share_a_scale() -> None:
    task = find_task("maze2d-umaze")
    start, goal = ends(task)
    looks: dict[str, Any] = {"start": start, "goal": goal, "marks": [SpeedLimit(1.0)]}
    plans = [at_speed(task, 2.0), at_speed(task, 4.0)]
    top = max(render.colour_top(task, plan, looks["marks"]) for plan in plans)
    for plan, speed in zip(plans, (2.0, 4.0), strict=True):
        picture = render.plan_picture(task, plan, **looks, scale_to=top)
        assert path_colour(picture) == pytest.approx(colours.SPEED_COLOURS(speed / top)[:3], abs=0.02)
    alone = render.plan_picture(task, plans[1], **looks)
    assert (alone == render.plan_picture(task, plans[1], **looks, scale_to=top)).all()  # its own top
    seconds = plans[0].duration_seconds
    assert render.colour_top(task, plans[0], []) == pytest.approx(seconds)
    longer = render.plan_picture(task, plans[0], start=start, goal=goal, scale_to=2 * seconds)
    assert path_colour(longer) == pytest.approx(colours.TIME_COLOURS(0.25)[:3], abs=0.03)
    hopper = make_task("hopper")
    plan = make_plan(hopper)
    drawn, *_ = render._plan_scene(hopper, plan, [], None, "", tempo=1.0, scale_to=3.0)
    assert drawn.panels[0].get_xlim() == (0, 3.0)
    assert render.colour_top(task, np.zeros((1, 4)), []) > 0


@pytest.mark.parametrize("wrong", [{"tempo": 0.0}, {"scale_to": -1.0}, {"scale_to": float("nan")}])
def test_scales_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    task = find_task("maze2d-umaze")
    start, goal = ends(task)
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}=.* must be positive and finite"):
        render.plan_picture(task, make_plan(task), start=start, goal=goal, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TASKS)
def test_long_titles_end_in_an_ellipsis(name: str) -> None:
    task = make_task(name)
    words = " + ".join(["avoid:x=0,y=1.2,radius=0.2@100"] * 8)
    for scale in (1, 2):
        drawn = scene.Scene(task, np.zeros((1, len(task.spec.observation_names))), 1.0, title=words, scale=scale)
        shown = next(text for text in drawn.figure.texts if text.get_text().startswith("avoid"))
        assert shown.get_text().endswith("…")
        assert words.startswith(shown.get_text()[:-1])
        room = drawn.figure.bbox.width - 2 * scene.EDGE * scale
        assert 0.8 * room < shown.get_window_extent().width <= room  # no shorter than it must be
        picture = drawn.shot()
        assert (picture[: scene.TITLE * scale // 2, -scene.EDGE * scale + 2 :] == 255).all()
    short = scene.Scene(task, np.zeros((1, len(task.spec.observation_names))), 1.0, title="speed:max=1.5@3, $5 = $5")
    assert "speed:max=1.5@3, $5 = $5" in [text.get_text() for text in short.figure.texts]


def block(height: int, width: int, shade: int) -> np.ndarray:
    return np.full((height, width, 3), shade, np.uint8)


@pytest.mark.parametrize(("left", "right"), [((10, 20), (10, 30)), ((7, 9), (12, 4)), ((13, 5), (8, 8))])
def test_side_by_side(left: tuple[int, int], right: tuple[int, int]) -> None:
    page = render.side_by_side(block(*left, 10), block(*right, 20))
    height, width = max(left[0], right[0]), left[1] + right[1]
    assert page.shape == (height + height % 2, width + width % 2, 3)
    assert page.dtype == np.uint8
    assert (page[: left[0], : left[1]] == 10).all()
    assert (page[: right[0], left[1] : width] == 20).all()
    assert (page == 10).sum() == 3 * left[0] * left[1]
    assert (page == 20).sum() == 3 * right[0] * right[1]
    assert ((page == 10) | (page == 20) | (page == 255)).all()


def test_films_side_by_side_hold_the_shorter() -> None:
    for counts in ((3, 5), (5, 3), (4, 4), (1, 2)):
        left, right = ([block(4, 6, 40 * k + i) for i in range(count)] for k, count in enumerate(counts))
        both = list(render.frames_side_by_side(iter(left), right))
        assert len(both) == max(counts)
        for i, frame in enumerate(both):
            assert frame[0, 0, 0] == min(i, counts[0] - 1)
            assert frame[0, -1, 0] == 40 + min(i, counts[1] - 1)


def test_films_side_by_side_are_lazy() -> None:
    made = {"left": 0, "right": 0}

    def endless(name: str) -> Iterator[np.ndarray]:
        while True:
            made[name] += 1
            yield block(4, 4, 0)

    both = render.frames_side_by_side(endless("left"), endless("right"))
    assert made == {"left": 0, "right": 0}
    for i in range(1, 4):
        assert next(both).shape == (4, 8, 3)
        assert made == {"left": i, "right": i}


def test_empty_films_are_refused() -> None:
    some = [block(4, 4, 0)]
    for left, right, name in (([], some, "left"), (some, [], "right"), ([], [], "left")):
        with pytest.raises(ValueError, match=f"the {name} film is empty"):
            next(render.frames_side_by_side(left, right))


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


def test_gifs_keep_the_colours_of_speed(tmp_path: Path) -> None:
    task = find_task("maze2d-umaze")
    start, goal = ends(task)
    plan = make_plan(task, candidates=8)
    plan.trajectories[0][:, plan.spec.velocity_columns[0]] = np.linspace(0, 5, task.horizon)
    marks = [SpeedLimit(2.0), Box(0, 0.9, 0.4, 0.4)]
    frames = list(render.plan_frames(task, plan, start=start, goal=goal, marks=marks, count=6))
    video.save_video(tmp_path / "a.gif", frames, fps=10)
    back = iio.imread(tmp_path / "a.gif", index=None)
    off = np.abs(back[5].astype(int) - frames[5]).max(axis=-1)
    row, column = pixel_of(scene.Scene(task, np.zeros((1, 4)), 1.0, title=""), (0.0, 1.0))
    path = off[row, column - 50 : column + 50]
    assert path.max() <= 6
    assert path.mean() < 3


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
