"""Pictures of the arm: what is drawn stands where the camera sees it, films show what was executed, files work.

Shape letters: T steps, O observations, Q generalised positions, n rows.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from typer.testing import CliRunner

from diffplan.cli.main import app
from diffplan.envs import arm_data, arm_rollouts, arm_stage, arm_view, requests
from diffplan.envs.arm_rollouts import ArmEpisode, replayed
from diffplan.envs.arm_stage import OUTLOOKS, ArmStage
from diffplan.envs.colours import AGENT, GOAL, VIA
from diffplan.envs.coordinates_view import coordinates, coordinates_scene
from diffplan.envs.datasets import collect
from diffplan.envs.drawing import drawing_of
from diffplan.envs.experts import EXPERTS
from diffplan.envs.render import HELD_FRAMES, drawn_steps
from diffplan.envs.rollouts import check_drawn, has_pictures
from diffplan.envs.simulators import Simulators
from diffplan.envs.tasks import ArmTask, find_task
from diffplan.envs.tasks.arms import GRIP, OBJECT
from diffplan.envs.training import train_run
from diffplan.planner.guides.marks import Ball, Block, Box, Disc, Spot
from diffplan.planner.plan import Plan
from diffplan.planner.training import TrainConfig

SKILLS = tuple(OUTLOOKS)
SIZE = (150, 110)


@functools.cache
def task_of(skill: str) -> ArmTask:
    task = find_task(f"fetch-{skill}")
    assert isinstance(task, ArmTask)
    return task


@functools.cache
def executed(skill: str, steps: int = 30, placed: bool = False) -> tuple[ArmEpisode, np.ndarray]:
    """An episode of the expert, with plans that are what came, and the simulator's poses (T + 1, Q)."""
    task, start = task_of(skill), (1.3, 0.8, 0.42) if placed else None
    with Simulators(task, 1, start=start) as simulators:
        observations, goals = simulators.reset([5])
        states, actions, poses = [observations[0]], [], [simulators.envs[0].data.qpos.copy()]
        for _ in range(steps):
            actions.append(EXPERTS[skill](states[-1].astype(float), goals[0].astype(float)).astype(np.float32))
            states.append(simulators.step(actions[-1][None])[0][0].copy())
            poses.append(simulators.envs[0].data.qpos.copy())
    known = np.array(states)
    plans = tuple(known[step:] for step in range(0, steps, 10))
    return ArmEpisode(known, np.array(actions), goals[0], 5, tuple(range(0, steps, 10)), plans), np.array(poses)


def plan_of(skill: str, candidates: int = 3) -> Plan:
    """The expert's way as a plan; rivals go 3 cm higher in the middle."""
    task, states = task_of(skill), executed(skill)[0].states
    made = np.zeros((candidates, len(states), task.spec.width), np.float32)
    made[..., task.spec.observations] = states
    made[..., task.spec.arrived] = np.where(np.arange(len(states)) < len(states) - 1, -1, 1)
    for body in task.spec.body_columns:
        made[1:, :, body[2]] += 0.03 * np.sin(np.linspace(0, np.pi, len(states)))
    zeros = np.zeros(candidates)
    return Plan(task.spec, made, np.full(candidates, len(states) - 1), zeros, zeros, zeros)


def places(skill: str, rows: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    return np.asarray(rows)[..., [task_of(skill).spec.observation_names.index(n) for n in names]]


def seen_at(skill: str, point: Any, width: int, height: int) -> np.ndarray:
    """(column, row) of the pixel at which a pinhole camera of 45 degrees has a point (3,), from the outlook alone."""
    view = OUTLOOKS[skill]
    turn, lift = np.radians(view.azimuth), np.radians(view.elevation)
    forward = np.array([np.cos(lift) * np.cos(turn), np.cos(lift) * np.sin(turn), np.sin(lift)])
    right = np.array([np.sin(turn), -np.cos(turn), 0.0])
    off = np.asarray(point, dtype=float) - (np.array(view.point) - view.distance * forward)
    scale = height / 2 / np.tan(np.radians(45 / 2)) / (off @ forward)
    return np.array([width / 2 + scale * (off @ right), height / 2 - scale * (off @ np.cross(right, forward))])


class TestOutlook:
    @pytest.mark.parametrize("skill", SKILLS)
    def test_everything_that_can_be_asked_for_is_in_view(self, skill: str) -> None:
        task = task_of(skill)
        width, height = arm_view.WIDTH - 28, arm_view.HEIGHT - 64
        for low_high in filter(None, (task.reachable, task.start_box)):
            for corner in np.stack(np.meshgrid(*low_high), axis=-1).reshape(-1, 3):
                column, row = seen_at(skill, corner, width, height)
                assert 0 < column < width and 0 < row < height, corner


@pytest.mark.usefixtures("drawing")
class TestStage:
    @pytest.fixture(scope="class", params=SKILLS)
    def stage(self, request: pytest.FixtureRequest, drawing: None) -> Iterator[ArmStage]:
        with ArmStage(task_of(request.param), *SIZE) as stage:
            yield stage

    def test_a_ball_is_where_the_camera_projects_its_centre(self, stage: ArmStage) -> None:
        skill = stage.task.skill
        for point in ((1.2, 0.65, 0.75), (1.4, 0.9, 0.5), (1.5, 0.7, 0.46)):
            stage.show(stage.first)
            bare = stage.shot().astype(int)
            stage.show(stage.first)
            stage.add_marks([Ball(point[0], point[1], 0.03, point[2])])
            rows, columns = np.nonzero(np.abs(stage.shot() - bare).max(axis=-1) > 4)
            middle = [(columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2]
            np.testing.assert_allclose(middle, seen_at(skill, point, *SIZE), atol=1.5)

    def test_what_is_observed_is_where_it_stands(self, stage: ArmStage) -> None:
        skill = stage.task.skill
        states = executed(skill)[0].states
        for row, pose in zip(states, stage.postures.poses(states), strict=True):
            stage._move(pose)
            np.testing.assert_allclose(stage.data.site("robot0:grip").xpos, places(skill, row, GRIP), atol=1e-3)
            if stage.task.has_object:
                body = stage.data.body("object0")
                np.testing.assert_allclose(body.xpos, places(skill, row, OBJECT), atol=1e-6)
                cos, sin = places(skill, row, ("object_cos", "object_sin"))
                np.testing.assert_allclose(body.xmat[[0, 3]], [cos, sin], atol=1e-5)

    def test_it_begins_as_the_simulator_does(self, stage: ArmStage) -> None:
        episode, poses = executed(stage.task.skill)
        np.testing.assert_allclose(stage.postures.poses(episode.states[:1])[0], poses[0], atol=1e-3)

    def test_from_beyond_its_reach_it_comes_back(self, stage: ArmStage) -> None:
        skill = stage.task.skill
        rows = np.tile(executed(skill)[0].states[:1], (3, 1))
        rows[1] += 5.0
        poses = stage.postures.poses(rows)
        assert np.isfinite(poses).all()
        for pose, near in zip(poses, (True, False, True), strict=True):
            stage._move(pose)
            gap = np.linalg.norm(stage.data.site("robot0:grip").xpos - places(skill, rows[0], GRIP))
            assert (gap < 0.02) == near

    def test_marks_are_gone_in_the_next_picture(self, stage: ArmStage) -> None:
        stage.show(stage.first)
        bare = stage.shot()
        marks = [Ball(1.3, 0.6, 0.05, 0.5), Block(1.4, 0.9, 0.1, 0.1, 0.45, 0.1), Disc(1.2, 0.6, 0.04)]
        for mark in (*marks, Box(1.45, 0.8, 0.1, 0.1), Spot(1.35, 0.65), Spot(1.35, 0.65, 0.5)):
            stage.show(stage.first)
            before = stage.scene.ngeom
            stage.add_marks([mark])
            assert stage.scene.ngeom == before + 1
            assert (stage.shot() != bare).any()
        stage.show(stage.first)
        np.testing.assert_array_equal(stage.shot(), bare)

    def test_what_is_drawn_over_it_is_no_part_of_the_simulator(self, stage: ArmStage) -> None:
        """Also where the scene's memory still names a part that stood in its place."""
        stage.show(stage.first)
        own = len(stage._geoms(range(stage.model.nbody)))
        for geom in stage.scene.geoms[stage.scene.ngeom : stage.scene.ngeom + 3]:
            geom.objtype, geom.objid = 5, stage.model.ngeom
        stage.add_goal((1.3, 0.7, 0.5))
        stage.add_way(np.array([(1.3, 0.7, 0.5), (1.3, 0.8, 0.6)]), VIA, radius=0.01)
        assert len(stage._geoms(range(stage.model.nbody))) == own

    def test_what_the_arm_hides_shines_through(self, stage: ArmStage) -> None:
        wrist = np.array(stage.data.body("robot0:gripper_link").xpos)
        stage.show(stage.first)
        bare = stage.shot().astype(int)
        stage.show(stage.first)
        stage.add_goal(wrist)
        column, row = seen_at(stage.task.skill, wrist, *SIZE).astype(int)
        golden = 255 * np.array(to_rgb(GOAL))
        now = stage.shot().astype(int)[row, column]
        assert np.abs(now - golden).sum() < np.abs(bare[row, column] - golden).sum()


def rods(stage: ArmStage, colour: str, radius: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Both ends (3,) of all rods of a colour and a radius on the stage."""
    found = []
    for geom in stage.scene.geoms[: stage.scene.ngeom]:
        alike = np.abs(np.array(geom.rgba[:3]) - to_rgb(colour)).max() < 1e-3
        if alike and geom.objtype != 5 and abs(geom.size[0] - radius) < 1e-6:
            half = geom.size[2] * geom.mat[:, 2]
            found.append((geom.pos - half, geom.pos + half))
    return found


def between(points: np.ndarray, count: int = 20) -> np.ndarray:
    """Points (n, 3) and what lies straight between them."""
    at = np.linspace(0, len(points) - 1, (len(points) - 1) * count + 1)
    return np.stack([np.interp(at, np.arange(len(points)), axis) for axis in points.T], axis=1)


@pytest.mark.usefixtures("drawing")
class TestPlans:
    @pytest.mark.parametrize("skill", SKILLS)
    def test_paths_lead_from_where_things_are_to_where_they_are_planned(self, skill: str) -> None:
        plan, task = plan_of(skill), task_of(skill)
        with ArmStage(task, *SIZE) as stage:
            stage.show(stage.postures.poses(plan.observations[0][:1])[0])
            arm_view._add_plan(stage, plan)
            things = [(VIA, GRIP, arm_view.SLIM)] + [(AGENT, OBJECT, arm_view.THICK)] * task.has_object
            for colour, names, radius in things:
                way = between(places(skill, plan.observations[0], names))
                drawn = rods(stage, colour, radius)
                np.testing.assert_allclose(drawn[0][0], way[0], atol=1e-3)
                np.testing.assert_allclose(drawn[-1][1], way[-1], atol=1e-3)
                for begin, end in drawn:
                    assert min(np.linalg.norm(way - begin, axis=1)) < 2e-3
                    assert min(np.linalg.norm(way - end, axis=1)) < 2e-3
            begun = np.array(stage.data.site("robot0:grip").xpos)
            np.testing.assert_allclose(rods(stage, VIA, arm_view.SLIM)[0][0], begun, atol=1e-3)

    def test_pictures_and_films_have_their_sizes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(arm_view, "WIDTH", 160)
        monkeypatch.setattr(arm_view, "HEIGHT", 150)
        task, plan = task_of("push"), plan_of("push")
        goal = executed("push")[0].goal
        assert arm_view.plan_picture(task, plan, goal=goal).shape == (300, 320, 3)
        frames = list(arm_view.plan_frames(task, plan, goal=goal, count=4))
        assert [f.shape for f in frames] == [(150, 160, 3)] * (4 + HELD_FRAMES)
        assert all((a != b).any() for a, b in zip(frames[:3], frames[1:4], strict=True))
        assert all((f == frames[3]).all() for f in frames[3:])
        again = list(arm_view.plan_frames(task, plan, goal=goal, count=4))
        np.testing.assert_array_equal(frames, again)

    def test_without_a_goal_and_at_its_end_a_plan_is_still_a_picture(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(arm_view, "WIDTH", 160)
        plan = plan_of("reach")
        there = Plan(plan.spec, plan.trajectories, plan.arrivals * 0, plan.scores, plan.consistency, plan.scores)
        assert arm_view.plan_picture(task_of("reach"), there, goal=None).size


class TestReplay:
    @pytest.mark.parametrize("skill", SKILLS)
    def test_the_simulators_states_are_those_that_were_executed(self, skill: str) -> None:
        episode, poses = executed(skill)
        np.testing.assert_array_equal(replayed(task_of(skill), episode), poses)

    def test_an_object_that_was_placed_is_placed_again(self) -> None:
        episode, poses = executed("push", placed=True)
        np.testing.assert_allclose(replayed(task_of("push"), episode), poses, atol=1e-5)
        assert np.abs(poses[0] - executed("push")[1][0]).max() > 0.01

    def test_another_episode_is_refused(self) -> None:
        episode, _ = executed("push")
        other = ArmEpisode(episode.states, -episode.actions, episode.goal, 5, episode.plan_steps, episode.plans)
        with pytest.raises(ValueError, match=r"does not repeat the episode of seed 5: .* --output FILE\.png"):
            replayed(task_of("push"), other)

    def test_the_rest_of_a_plan_begins_in_the_present(self) -> None:
        episode, _ = executed("reach")
        for step in (0, 4, 10, 19, 28):
            np.testing.assert_array_equal(episode.plan_at(step), episode.states[step:])
        assert episode.plan_at(30) is None

    @pytest.mark.usefixtures("drawing")
    def test_a_film_shows_these_poses_and_plans(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(arm_view, "WIDTH", 160)
        monkeypatch.setattr(arm_stage, "FINE", 1)
        shown, ways = [], []
        show, add_way = ArmStage.show, ArmStage.add_way
        monkeypatch.setattr(ArmStage, "show", lambda s, pose: shown.append(pose.copy()) or show(s, pose))
        monkeypatch.setattr(ArmStage, "add_way", lambda s, p, c, **k: ways.append((c, p)) or add_way(s, p, c, **k))
        episode, poses = executed("push")
        frames = list(arm_rollouts.arm_film(task_of("push"), episode, every=7))
        steps = drawn_steps(30, 7)
        assert len(frames) == len(steps) + HELD_FRAMES
        np.testing.assert_array_equal(shown, poses[steps])
        planned = [p for c, p in ways if c == AGENT]
        sofar = [p for c, p in ways if c not in (AGENT, VIA)][1::2]
        assert len(planned) == len(steps) - 1  # at the end nothing is ahead
        for step, ahead, gone in zip(steps, [*planned, None], sofar, strict=True):
            way = places("push", episode.states, OBJECT)
            np.testing.assert_array_equal(gone, way[: step + 1])
            assert ahead is None or (ahead == way[step:]).all()


class TestCurves:
    @pytest.mark.parametrize("skill", SKILLS)
    def test_a_panel_for_each_coordinate(self, skill: str) -> None:
        task, (episode, _) = task_of(skill), executed(skill)
        drawn = coordinates_scene(task, episode.states, episode.plan_steps, episode.plans, goal=episode.goal)
        names = coordinates(task)
        assert [axes.get_title(loc="left") for axes in drawn.panels] == [f"{name} in m" for name in names]
        assert len(names) == (8 if task.has_object else 3)
        for name, axes in zip(names, drawn.panels, strict=True):
            plans, came = axes.collections[:2]
            (way,) = came.get_segments()
            np.testing.assert_allclose(way[:, 1], places(skill, episode.states, (name,))[:, 0])
            np.testing.assert_allclose(way[:, 0], 0.04 * np.arange(31))
            assert [p[0, 0] for p in plans.get_segments()] == pytest.approx([0, 0.4, 0.8])
            ticks = next(line for line in axes.lines if line.get_marker() == "|")
            np.testing.assert_allclose(ticks.get_xdata(), [0, 0.4, 0.8])

    def test_the_goal_is_a_dashed_line_in_its_band(self) -> None:
        task, (episode, _) = task_of("push"), executed("push")
        drawn = coordinates_scene(task, episode.states, episode.plan_steps, episode.plans, goal=episode.goal)
        for value, axes in zip(episode.goal, drawn.panels[:3], strict=True):
            (line,) = [one for one in axes.lines if one.is_dashed()]
            np.testing.assert_allclose(line.get_ydata(), value)
            band = axes.patches[-1].get_extents().transformed(axes.transData.inverted())
            np.testing.assert_allclose([band.y0, band.y1], [value - 0.05, value + 0.05])
            assert axes.get_ylim()[0] < band.y0 < band.y1 < axes.get_ylim()[1]
        assert not any(line.is_dashed() for axes in drawn.panels[3:] for line in axes.lines)


class TestWhereItIsAskedFor:
    def test_without_a_backend_plans_are_curves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(arm_rollouts, "use_backend", lambda: None)
        episode, _ = executed("reach")
        picture, _ = drawing_of(task_of("reach"), episode.states[0])
        drawn = picture(task_of("reach"), plan_of("reach"), goal=episode.goal)
        assert drawn.ndim == 3 and drawn.shape[0] < 800

    def test_other_rollouts_are_no_pictures(self) -> None:
        check_drawn(task_of("push"), Path("a.png"))
        check_drawn(find_task("maze2d-umaze"), Path("a.gif"))
        with pytest.raises(ValueError, match=r"a\.png: a rollout of maze2d-umaze is drawn as a film; use \.gif"):
            check_drawn(find_task("maze2d-umaze"), Path("a.png"))
        assert has_pictures(find_task("maze2d-umaze")) and has_pictures(find_task("door-human"))
        assert not has_pictures(task_of("push")) and not has_pictures(find_task("hopper-medium"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("drawing")
class TestCommandLine:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory, quicken: Any) -> Iterator[Path]:
        """With a run of pushing, trained for a moment."""
        from diffplan.envs.presets import find_preset

        folder, task = tmp_path_factory.mktemp("arms"), task_of("push")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MINARI_DATASETS_PATH", str(folder / "data"))
            patch.setattr(arm_data, "CHUNK", 2)
            patch.setattr(arm_data, "PROVEN", 1)
            quicken(patch)
            list(collect(task, steps=200))
            config = TrainConfig(**task.training, steps=2, batch_size=8)
            list(train_run(task, folder / "run", config, preset=find_preset("default", task), device="cpu"))
            yield folder

    @pytest.fixture
    def cli(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(arm_view, "WIDTH", 160)
        monkeypatch.setattr(arm_view, "HEIGHT", 150)
        monkeypatch.setattr(arm_stage, "FINE", 1)
        monkeypatch.setattr(requests, "FRAMES", 6)

        def call(*words: str) -> str:
            done = CliRunner().invoke(app, list(words))
            assert done.exit_code == 0, done.output + done.stderr
            return done.output

        return call

    def test_plans(self, cli: Any) -> None:
        asked = ("plan", "run", "--goal", "1.4,0.8,0.425", "--candidates", "2")
        cli(*asked, "--output", "p.png", "--output", "p.gif", "--output", "p.json", "--via", "1.3,0.8,0.425")
        assert iio.imread("p.png").shape == (300, 320, 3)
        assert iio.imread("p.gif", index=None).shape[1:] == (150, 160, 3)
        cli("render", "p.json", "--output", "again.png")
        assert np.abs(iio.imread("again.png").astype(int) - iio.imread("p.png")).mean() < 1
        cli(*asked, "--avoid", "1.25,0.6,0.6,0.05", "--compare", "--output", "two.png")
        assert iio.imread("two.png").shape == (300, 640, 3)

    def test_rollouts(self, cli: Any) -> None:
        asked = ("rollout", "run", "--goal", "1.4,0.8,0.425", "--start", "1.3,0.8,0.42", "--candidates", "2")
        cli(*asked, "--output", "r.gif", "--output", "r.png", "--output", "r.json", "--replan-every", "20")
        film, record = iio.imread("r.gif", index=None), json.loads(Path("r.json").read_text())
        assert film.shape[1:] == (150, 160, 3) and 2 < len(film) <= 51
        assert [len(p) > 1 for p in record["plan_references"]] == [True] * len(record["plan_steps"]) == [True] * 3
        cli("render", "r.json", "--output", "again.png")
        assert np.abs(iio.imread("again.png").astype(int) - iio.imread("r.png")).mean() < 0.5
        cli("render", "r.json", "--output", "again.gif")
        assert abs(len(iio.imread("again.gif", index=None)) - len(film)) <= 2
        cli(*asked, "--avoid", "1.25,0.6,0.6,0.05", "--compare", "--output", "two.mp4", "--replan-every", "50")
        assert iio.imread("two.mp4", index=0, plugin="FFMPEG").shape == (150, 320, 3)
        record["plan_references"][1] = [[0.0]]
        Path("bad.json").write_text(json.dumps(record))
        bad = CliRunner().invoke(app, ["render", "bad.json", "--output", "bad.png"])
        assert bad.exit_code == 2 and "do not fit together" in " ".join(bad.stderr.split())
