"""The robot drawn: where it is, what ghosts add, what stays in view, and films of the right length.

Shape letters: T steps, O observations, Q generalised positions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from diffplan.envs import robot_view
from diffplan.envs.colours import VIA
from diffplan.envs.render import HELD_FRAMES, drawn_steps
from diffplan.envs.robot_view import OUTLOOKS, Page, Stage, robot_frames
from diffplan.envs.tasks import RobotTask, find_task

ROBOTS = tuple(OUTLOOKS)
SMALL: dict[str, Any] = {"width": 200, "height": 170}


def robot(name: str) -> RobotTask:
    task = find_task(f"{name}-medium")
    assert isinstance(task, RobotTask)
    return task


@functools.cache
def episode(name: str, steps: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Observations (steps + 1, O) and the simulator's own positions (steps + 1, Q) under random actions."""
    env, rng = robot(name).environment(), np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    states, poses = [observation], [env.data.qpos.copy()]
    for _ in range(steps):
        observation, *_ = env.step(rng.uniform(-1, 1, env.action_space.shape))
        states.append(observation)
        poses.append(env.data.qpos.copy())
    env.close()
    return np.array(states), np.array(poses)


def bowing(task: RobotTask, state: np.ndarray, rows: int = 6) -> np.ndarray:
    """A plan (rows, O) that moves a joint and stays where it is, so that the camera does too."""
    plan = np.tile(state, (rows, 1))
    plan[:, task.joints - 1] += np.linspace(0, 1, rows)
    plan[:, task.joints : task.joints + task.hidden] = 0
    return plan


class Notes:
    """Stands in for the stage: keeps what it is asked to show, and draws nothing."""

    def __init__(self, task: RobotTask, width: int, height: int, *, ways: Sequence[np.ndarray] = ()) -> None:
        self.blank = np.zeros((height, width, 3), np.uint8)
        self.shown: list[dict[str, Any]] = []

    def __enter__(self) -> Notes:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, pose: np.ndarray) -> None:
        self.shown.append({"now": pose, "ghosts": [], "alphas": [], "trace": None})

    def add_ghost(self, pose: np.ndarray, alpha: float) -> None:
        self.shown[-1]["ghosts"].append(pose)
        self.shown[-1]["alphas"].append(alpha)

    def add_trace(self, poses: np.ndarray) -> None:
        self.shown[-1]["trace"] = poses

    def shot(self) -> np.ndarray:
        return self.blank


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[Notes]:
    made: list[Notes] = []
    monkeypatch.setattr(robot_view, "Stage", lambda *a, **k: made.append(Notes(*a, **k)) or made[-1])
    return made


class TestPoses:
    @pytest.mark.parametrize("name", ROBOTS)
    def test_are_the_simulators_own(self, name: str) -> None:
        """What is observed exactly; the root, integrated over 200 steps, within 3 % of the way it went."""
        task, (states, poses) = robot(name), episode(name)
        found = task.poses(states, root=poses[0, : task.hidden])
        assert found.shape == poses.shape
        np.testing.assert_array_equal(found[:, task.hidden :], poses[:, task.hidden :])
        way = np.abs(np.diff(poses[:, : task.hidden], axis=0)).sum(axis=0)
        assert (way > 0.3).all()
        assert (np.abs(found - poses)[:, : task.hidden].max(axis=0) < 0.03 * way).all()

    @pytest.mark.parametrize("name", ROBOTS)
    def test_begin_at_the_root(self, name: str) -> None:
        task, (states, _) = robot(name), episode(name)
        root = np.arange(1.0, 1 + task.hidden)
        moved = task.poses(states, root=root) - task.poses(states)
        np.testing.assert_allclose(moved[:, : task.hidden], np.tile(root, (len(states), 1)))
        np.testing.assert_array_equal(task.poses(states)[0, : task.hidden], 0)


class TestWhatIsShown:
    def test_ghosts_are_evenly_spaced_planned_poses_that_fade(self, notes: list[Notes]) -> None:
        task, (states, _) = robot("hopper"), episode("hopper")
        list(robot_frames(task, states[:41], lambda step: states[step : step + 16], every=10, **SMALL))
        poses = task.poses(states)
        for step, shown in zip((0, 10, 20, 30, 40), notes[0].shown, strict=True):
            np.testing.assert_allclose(shown["now"], poses[step])
            np.testing.assert_allclose(shown["ghosts"], poses[[step + 5, step + 10, step + 15]], atol=1e-12)
            np.testing.assert_allclose(shown["trace"], poses[step : step + 16], atol=1e-12)
            assert (np.diff(shown["alphas"]) < 0).all()

    def test_rows_of_a_plan_are_a_stride_apart(self, notes: list[Notes]) -> None:
        task = robot("hopper")
        task = replace(task, spec=replace(task.spec, stride=3))
        plan = np.zeros((5, len(task.spec.observation_names)))
        plan[:, task.spec.observation_names.index("vx")] = 2.0
        list(robot_frames(task, plan[:1], lambda _: plan, **SMALL))
        np.testing.assert_allclose(notes[0].shown[0]["trace"][:, 0], 2.0 * 3 * 0.008 * np.arange(5))

    @pytest.mark.parametrize(("rows", "ghosts", "drawn"), [(1, 3, 0), (2, 3, 1), (3, 5, 2), (16, 0, 0), (16, 4, 4)])
    def test_short_plans_have_fewer_ghosts(self, rows: int, ghosts: int, drawn: int, notes: list[Notes]) -> None:
        task, (states, _) = robot("hopper"), episode("hopper")
        list(robot_frames(task, states[:2], lambda _: states[:rows], ghosts=ghosts, **SMALL))
        assert [len(s["ghosts"]) for s in notes[0].shown] == [drawn] * 2

    @pytest.mark.parametrize(("steps", "every"), [(1, None), (7, 3), (130, None)])
    def test_one_frame_for_each_drawn_step_and_the_last_held(
        self, steps: int, every: int | None, notes: list[Notes]
    ) -> None:
        task, (states, _) = robot("hopper"), episode("hopper")
        frames = list(robot_frames(task, states[: steps + 1], lambda _: None, every=every, width=201, height=169))
        assert len(frames) == len(drawn_steps(steps, every)) + HELD_FRAMES
        assert {(f.shape, str(f.dtype)) for f in frames} == {((170, 202, 3), "uint8")}
        assert all((f == frames[-1]).all() for f in frames[-HELD_FRAMES - 1 :])
        assert all((a != b).any() for a, b in zip(frames[:-HELD_FRAMES], frames[1:-HELD_FRAMES], strict=False))
        assert not any(shown["ghosts"] or shown["trace"] is not None for shown in notes[0].shown)

    def test_the_return_so_far_is_told(self, notes: list[Notes], monkeypatch: pytest.MonkeyPatch) -> None:
        said: list[str] = []
        keep: Callable[..., Any] = Page.shot
        monkeypatch.setattr(Page, "shot", lambda page, *words: said.extend(words[1:]) or keep(page, *words))
        task, (states, _) = robot("hopper"), episode("hopper")
        plans = {2: states[:11]}
        list(robot_frames(task, states[:3], plans.get, rewards=[1.5, -0.25], every=1, **SMALL))
        told = ["step 0/2   0.00 s   return 0", "step 1/2   0.01 s   return 1.5", "step 2/2   0.02 s   return 1.25"]
        assert said[::2] == told
        assert said[1::2] == ["", "", "planned: 0.08 s"]


def test_the_picture_fills_its_room_and_words_stay_on_the_page() -> None:
    page = Page(300, 200, "words " * 40)
    picture = np.full((page.room[1], page.room[0], 3), 7, np.uint8)
    shot = page.shot(picture, "below", "aside")
    assert shot.shape == (200, 300, 3)
    assert (shot == 7).all(axis=-1).sum() == page.room[0] * page.room[1]
    assert (shot[:, :10] == 255).all() and (shot[:, -10:] == 255).all()
    assert (shot[:30] != 255).any() and (shot[-30:] != 255).any()


@pytest.mark.usefixtures("drawing")
class TestDrawn:
    @pytest.fixture(scope="class", params=ROBOTS)
    def seen(self, request: pytest.FixtureRequest, drawing: None) -> Iterator[tuple[Stage, np.ndarray]]:
        """A stage and the poses of an episode, its root far from the origin."""
        task, (states, _) = robot(request.param), episode(request.param)
        poses = task.poses(states, root=[30.0, 5.0][: task.hidden])
        with Stage(task, 160, 100, ways=[poses[15] - poses[0]]) as stage:
            yield stage, poses

    def test_the_whole_robot_is_in_view(self, seen: tuple[Stage, np.ndarray]) -> None:
        stage, poses = seen
        for step in (0, 10, 25, 60):
            away = poses[step].copy()
            stage.show(away)
            there = stage.shot().copy()
            away[stage.hidden] += 100  # the height
            stage.show(away)
            robot = (there != stage.shot()).any(axis=-1)
            assert robot.sum() > 100
            assert not robot[[0, -1]].any() and not robot[:, [0, -1]].any()

    def test_ghosts_tint_what_they_cover_and_are_gone_in_the_next_picture(self, seen: tuple[Stage, np.ndarray]) -> None:
        stage, poses = seen
        stage.show(poses[0])
        bare, changed = stage.shot().copy(), []
        for alpha in (0.8, 0.3):
            stage.show(poses[0])
            ahead = poses[0].copy()
            ahead[0] += 0.9
            stage.add_ghost(ahead, alpha)
            ghostly = stage.shot().copy()
            where = (ghostly != bare).any(axis=-1)
            assert where.sum() > 50
            assert np.flatnonzero(where.any(axis=0)).mean() > 80  # planned to the right
            changed.append(np.abs(ghostly.astype(float) - bare)[where].mean())
            towards = [np.abs(p[where] - 255 * np.array(to_rgb(VIA))).mean() for p in (ghostly, bare)]
            assert towards[0] < towards[1]
        assert changed[0] > changed[1]
        stage.show(poses[0])
        np.testing.assert_array_equal(stage.shot(), bare)

    def test_the_trace_shows(self, seen: tuple[Stage, np.ndarray]) -> None:
        stage, poses = seen
        stage.show(poses[0])
        bare = stage.shot().copy()
        way = np.tile(poses[0], (9, 1))
        way[:, 0] += np.linspace(0, 1, 9)
        stage.show(poses[0])
        stage.add_trace(way)
        assert (stage.shot() != bare).any(axis=-1).sum() > 10

    def test_the_floor_does_not_end(self, seen: tuple[Stage, np.ndarray]) -> None:
        """A thousand tiles further on it looks the same, but for rounding at the edges of tiles."""
        stage, poses = seen
        far = poses[0].copy()
        stage.show(far)
        near = stage.shot().astype(int)
        far[0] += 1000 * robot_view.TILE
        stage.show(far)
        assert (np.abs(stage.shot() - near).max(axis=-1) > 12).mean() < 0.02


@pytest.mark.usefixtures("drawing")
def test_ghosts_stand_where_there_is_a_plan_and_nowhere_else() -> None:
    task, (states, _) = robot("walker2d"), episode("walker2d")
    plain = list(robot_frames(task, states[:3], lambda _: None, **SMALL))
    plans = {1: bowing(task, states[1])}
    ghostly = list(robot_frames(task, states[:3], plans.get, **SMALL))
    assert [(a != b).any() for a, b in zip(plain, ghostly, strict=True)] == [False, True] + [False] * (1 + HELD_FRAMES)


@pytest.mark.usefixtures("drawing")
def test_same_input_same_picture_also_side_by_side() -> None:
    task, (states, _) = robot("ant"), episode("ant")

    def film() -> Iterator[np.ndarray]:
        return robot_frames(task, states[:2], lambda step: states[step : step + 8], **SMALL)

    alone = list(film())
    for one, two, three in zip(film(), film(), alone, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)
