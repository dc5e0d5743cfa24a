"""A plant that is fitted to the motions of a simulated one is that one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffplan.planner.episodes import Episodes
from diffplan.planner.plant import MOST_VOXELS, Plant
from diffplan.planner.spec import TrajectorySpec

DT = 0.05
ANSWER, PUSH = (0.98, 0.95, 0.99), (0.1, 0.2, 0.05)


def spec_of(axes: int) -> TrajectorySpec:
    position, velocity = tuple("xyz"[:axes]), tuple(f"v{c}" for c in "xyz"[:axes])
    return TrajectorySpec(tuple(f"f{c}" for c in position), velocity + position, position, velocity, DT, 2)


def recorded(
    axes: int, *, answer=ANSWER, push=PUSH, cap=np.inf, contacts=0.0, hold=1, seed=0, force=1.0, count=20
) -> Episodes:
    """Motions of 200 steps under actions that change at random every `hold` steps; a share of steps hits something."""
    rng = np.random.default_rng(seed)
    a, b = np.array(answer[:axes]), np.array(push[:axes])
    observations, actions = [], []
    for _ in range(count):
        states = [np.concatenate([np.zeros(axes), rng.uniform(-1, 1, axes)])]
        taken = np.repeat(rng.uniform(-force, force, (200 // hold, axes)), hold, axis=0)
        for action in taken:
            velocity = a * np.clip(states[-1][:axes], -cap, cap) + b * action
            hit = rng.random(axes) < contacts
            velocity = np.where(hit, -rng.random(axes) * velocity, velocity)
            states.append(np.concatenate([velocity, states[-1][axes:] + DT * velocity]))
        observations.append(np.array(states))
        actions.append(taken)
    return Episodes.from_arrays(observations, actions)


def fit(axes: int = 2, **options) -> Plant:
    return Plant.fit(recorded(axes, **options), spec_of(axes))


class TestFitting:
    @pytest.mark.parametrize("axes", [1, 2, 3])
    @pytest.mark.parametrize("contacts", [0.0, 0.15])
    def test_the_coefficients_of_a_linear_plant(self, axes, contacts):
        plant = fit(axes, contacts=contacts)
        np.testing.assert_allclose(plant.answer, ANSWER[:axes], rtol=1e-5)
        np.testing.assert_allclose(plant.push, PUSH[:axes], rtol=1e-5)
        assert plant.config.axes == axes
        assert plant.config.dt_seconds == DT

    def test_the_velocity_at_which_it_cuts_off(self):
        plant = fit(answer=(0.99, 0.99), push=(0.2, 0.2), cap=1.5)
        np.testing.assert_allclose(plant.answer, 0.99, rtol=1e-3)
        np.testing.assert_allclose(plant.push, 0.2, rtol=1e-3)
        np.testing.assert_allclose(plant.cap, 1.5, rtol=1e-3)
        assert (plant.top > 1.6).all()
        np.testing.assert_array_less(plant.limits[1], 0.99 * 1.5 + 0.2 + 1e-3)

    def test_without_a_cut_off_it_trusts_what_it_has_seen(self):
        episodes = recorded(2)
        plant = Plant.fit(episodes, spec_of(2))
        fastest = np.abs(episodes.observations[:, :2]).max(0)
        np.testing.assert_allclose(plant.top, fastest, rtol=1e-6)
        assert (plant.cap <= plant.top).all()
        assert (plant.cap > 0.9 * plant.top).all()

    def test_the_largest_force_is_the_largest_action(self):
        episodes = recorded(2, force=0.3)
        plant = Plant.fit(episodes, spec_of(2))
        np.testing.assert_allclose(plant.force, np.abs(episodes.actions).max(0))

    def test_steps_from_one_episode_to_the_next_are_none(self):
        """Every episode begins at rest somewhere else: as a transition that would be a wild one."""
        alone = fit(count=1, seed=3)
        cut = recorded(2, count=40, seed=3)
        np.testing.assert_allclose(alone.answer, Plant.fit(cut, spec_of(2)).answer, rtol=1e-5)

    def test_it_knows_its_columns(self):
        """The same motions with observations in another order."""
        spec, episodes = spec_of(2), recorded(2)
        order = [3, 0, 2, 1]
        mixed = replace(spec, observation_names=tuple(spec.observation_names[i] for i in order))
        other = Plant.fit(replace(episodes, observations=episodes.observations[:, order]), mixed)
        plain = Plant.fit(episodes, spec)
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in plain.state_dict().items())

    @pytest.mark.parametrize(
        "change",
        [
            {"position": (), "velocity": ()},
            {"position": ("x",), "velocity": ("vx",)},
            {"position": ("x",), "velocity": ()},
        ],
    )
    def test_what_is_no_plant_is_refused(self, change):
        spec = replace(spec_of(2), **change)
        assert not Plant.fits(spec)
        with pytest.raises(ValueError, match="one action for each"):
            Plant.fit(recorded(2), spec)

    def test_four_axes_are_too_many(self):
        names = tuple("abcd"), tuple("ABCD")
        assert not Plant.fits(TrajectorySpec(tuple("1234"), names[0] + names[1], names[0], names[1]))

    @pytest.mark.parametrize(
        "wrong", [{"axes": 4}, {"axes": 0}, {"voxels": (3,)}, {"voxels": (0, 3)}, {"voxels": (3000, 3000)}]
    )
    def test_grids_that_cannot_be_are_refused(self, wrong):
        with pytest.raises(ValueError):
            Plant(**wrong)


class TestLimits:
    def test_of_a_plant_without_drag(self, make_plant):
        force, speed = make_plant(2, push=0.1, cap=5.0, dt=0.01).limits
        np.testing.assert_allclose(force, 10.0, rtol=1e-6)
        np.testing.assert_allclose(speed, 5.0)

    def test_that_much_force_is_there_at_that_speed(self, make_plant):
        """Whatever is promised, the plant does: also against its drag, and at the largest speed."""
        for answer in (0.999, 0.98, 0.9):
            plant = make_plant(2, answer=answer)
            force, speed = plant.limits
            for sign in (-1, 1):
                wanted = speed + sign * force * plant.config.dt_seconds
                action = plant.actions_for(speed, wanted)
                got = answer * np.minimum(speed, plant.cap.numpy()) + 0.1 * action
                np.testing.assert_allclose(got, wanted, rtol=1e-5)

    def test_a_plant_that_was_seen_at_its_terminal_speed_can_still_be_hurried(self):
        """There drag takes all force; a third of the best speed from rest to rest must be possible below it."""
        plant = fit(1, answer=(0.9,), push=(0.1,), hold=50)
        assert plant.top > 0.85
        force, speed = plant.limits
        assert force > 0.3 * 0.1 / DT
        assert speed > 0.3


class TestActions:
    def test_they_are_the_inverse_of_the_model(self, make_plant):
        rng = np.random.default_rng(0)
        plant = make_plant(3, answer=0.97, cap=1.0, size=1.0)
        velocity, action = rng.uniform(-1.5, 1.5, (50, 3)), rng.uniform(-1, 1, (50, 3))
        after = 0.97 * np.clip(velocity, -1, 1) + 0.1 * action
        np.testing.assert_allclose(plant.actions_for(velocity, after), action, atol=1e-5)

    def test_they_are_clipped_to_what_was_seen(self, make_plant):
        plant = make_plant(2)
        plant.force[:] = torch.tensor([0.5, 2.0])
        got = plant.actions_for(np.zeros((2, 2)), np.array([[9.0, 9.0], [-9.0, -9.0]]))
        np.testing.assert_allclose(got, [[0.5, 2.0], [-0.5, -2.0]])


def _disc(points: np.ndarray) -> np.ndarray:
    return 3.0 - np.linalg.norm(points - 5.0, axis=-1)


def _box(points: np.ndarray) -> np.ndarray:
    """Depth inside the box from 2 to 8, and minus the distance from it."""
    over = np.abs(points - 5.0) - 3.0
    return -np.where((over > 0).any(-1), np.linalg.norm(np.maximum(over, 0), axis=-1), over.max(-1))


@pytest.mark.parametrize(("axes", "voxel"), [(1, 0.05), (2, 0.05), (3, 0.25)])
@pytest.mark.parametrize("shape", [_disc, _box])
class TestDepth:
    @pytest.fixture
    def plant(self, make_plant, axes, voxel, shape):
        return make_plant(axes, voxel=voxel, visited=lambda c: shape(c) > 0)

    @pytest.fixture
    def points(self, axes):
        return np.random.default_rng(0).uniform(0.5, 9.5, (400, axes))

    def test_it_is_the_distance_from_the_edge(self, plant, points, shape, voxel):
        depth, _ = plant.depth(points)
        np.testing.assert_allclose(depth, shape(points), atol=voxel)

    def test_the_way_deeper_leads_deeper(self, plant, points, shape, voxel):
        """Wherever the nearest edge is clear: a step that way changes the depth by its length."""
        step = 2 * voxel
        ahead = np.stack([shape(points + step * e) - shape(points - step * e) for e in np.eye(points.shape[1])], -1)
        clear = np.abs(np.linalg.norm(ahead / (2 * step), axis=-1) - 1) < 0.01
        clear &= (np.abs(shape(points)) > 2 * voxel) & (shape(points) < 2)
        way = plant.depth(points[clear])[1]
        np.testing.assert_allclose(np.linalg.norm(way, axis=-1), 1, atol=0.25)
        assert clear.sum() > 100
        assert ((way * ahead[clear] / (2 * step)).sum(-1) > 0.8).all()

    def test_beyond_the_grid_it_goes_on_about_as_far(self, plant, axes):
        depth, way = plant.depth(np.full((1, axes), 1e3))
        assert np.isfinite(way).all()
        assert depth == pytest.approx(-np.sqrt(axes) * 990, rel=0.02)

    def test_any_leading_shape_will_do(self, plant, points):
        depth, way = plant.depth(points)
        many, ways = plant.depth(points.reshape(4, 100, -1))
        np.testing.assert_array_equal(many.reshape(-1), depth)
        np.testing.assert_array_equal(ways.reshape(way.shape), way)
        np.testing.assert_allclose(plant(torch.from_numpy(points)), depth)


class TestVisitedSpace:
    NEAR = 3.5
    """Voxels beyond what was visited that may be taken to be free, and one for the grid itself."""

    @pytest.fixture(scope="class")
    def laps(self) -> Episodes:
        """Many laps on a ring of radius 2 to 3 around (10, -4)."""
        rng, angle = np.random.default_rng(0), np.linspace(0, 2 * np.pi, 400)
        made = []
        for _ in range(400):
            radius, shift = rng.uniform(2, 3), rng.uniform(0, 2 * np.pi)
            place = np.stack([10 + radius * np.cos(angle + shift), -4 + radius * np.sin(angle + shift)], axis=1)
            made.append(np.hstack([np.gradient(place, DT, axis=0), place]))
        return Episodes.from_arrays(made, [rng.uniform(-1, 1, (399, 2)) for _ in made])

    def test_where_the_data_has_been_is_inside(self, laps):
        plant = Plant.fit(laps, spec_of(2))
        radius = np.linspace(2.1, 2.9, 9)
        for angle in np.linspace(0, 6, 30):
            ring = np.stack([10 + radius * np.cos(angle), -4 + radius * np.sin(angle)], axis=1)
            assert (plant.depth(ring)[0] > 0).all()
        hole_and_outside = np.array([[10, -4], [11, -4], [10, -2.7], [13.4, -4], [10, 0]])
        depth = plant.depth(hole_and_outside)[0]
        np.testing.assert_allclose(depth, [-2, -1, -0.7, -0.4, -1], atol=self.NEAR * plant.config.voxel)

    def test_the_grid_leaves_a_margin(self, laps):
        visited = Plant.fit(laps, spec_of(2)).visited.numpy()
        for edge in (visited[:3], visited[-3:], visited[:, :3], visited[:, -3:]):
            assert not edge.any()

    def test_a_state_or_two_may_be_an_accident(self, laps):
        strayed = laps.observations.copy()
        strayed[[5, 9], 2:] = [10, -4]
        plant = Plant.fit(replace(laps, observations=strayed), spec_of(2))
        assert plant.depth([10, -4])[0] == pytest.approx(-2, abs=self.NEAR * plant.config.voxel)

    @pytest.mark.parametrize("axes", [1, 2, 3])
    @pytest.mark.parametrize("extent", [1e-4, 1.0, 1e4])
    def test_the_grid_stays_small_whatever_the_extent(self, axes, extent):
        """A few slow steps in a corner, a few more at the far end."""
        rng = np.random.default_rng(0)
        near = np.cumsum(rng.normal(0, 1e-4, (100, axes)), axis=0)
        states = [np.hstack([np.gradient(p, axis=0), p]) for p in (near, near + extent)]
        plant = Plant.fit(Episodes.from_arrays(states, [rng.uniform(-1, 1, (99, axes))] * 2), spec_of(axes))
        assert np.prod(plant.config.voxels) <= MOST_VOXELS
        assert np.isfinite(plant.depth(near)[0]).all()

    def test_a_plane_of_which_the_data_knows_a_line_and_mostly_stands(self):
        places = np.repeat(np.linspace(0, 10, 20), 30)
        states = np.stack([np.sin(places), np.cos(places), places, 0 * places], axis=1)
        episodes = Episodes.from_arrays([states], [np.random.default_rng(0).uniform(-1, 1, (599, 2))])
        plant = Plant.fit(episodes, spec_of(2))
        assert np.prod(plant.config.voxels) <= MOST_VOXELS

    def test_where_no_place_was_visited_often_enough_everything_is_outside(self):
        line = np.linspace(0, 10, 30)
        states = np.stack([np.sin(line), np.cos(line), line, 0 * line], axis=1)
        rng = np.random.default_rng(0)
        plant = Plant.fit(Episodes.from_arrays([states], [rng.uniform(-1, 1, (29, 2))]), spec_of(2))
        depth, way = plant.depth(states[:, 2:])
        assert not plant.visited.any()
        assert (depth < -1).all()
        assert np.isfinite(way).all()


def test_it_survives_saving(tmp_path):
    plant = fit(3)
    plant.save_pretrained(tmp_path)
    again = Plant.from_pretrained(tmp_path)
    assert plant.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in plant.state_dict().items())
    points = np.random.default_rng(0).uniform(-2, 2, (20, 3))
    np.testing.assert_array_equal(plant.depth(points)[0], again.depth(points)[0])
    np.testing.assert_array_equal(plant.limits, again.limits)


class TestWhereActionsSetVelocities:
    """Positions without velocities: an action of 1 goes so far in a step."""

    PUSH = (0.8, 0.4)  # per second
    SPEC = TrajectorySpec(("fx", "fy"), ("x", "y"), ("x", "y"), (), DT, 2)

    def recorded(self, *, contacts: float = 0.0, inertia: float = 0.0) -> Episodes:
        rng = np.random.default_rng(0)
        observations, actions = [], []
        for _ in range(20):
            taken, places, going = rng.uniform(-1, 1, (200, 2)), [np.zeros(2)], np.zeros(2)
            for action in taken:
                going = inertia * going + (1 - inertia) * np.array(self.PUSH) * action
                places.append(places[-1] + DT * going * (rng.random() >= contacts))
            observations.append(np.array(places))
            actions.append(taken)
        return Episodes.from_arrays(observations, actions)

    @pytest.mark.parametrize("contacts", [0.0, 0.15])
    def test_what_an_action_does(self, contacts):
        plant = Plant.of(self.recorded(contacts=contacts), self.SPEC)
        assert plant is not None
        np.testing.assert_allclose(plant.push, self.PUSH, rtol=1e-4)
        assert (plant.answer == 0).all()
        np.testing.assert_allclose(plant.actions_for(np.zeros(2), [0.4, 0.4]), [0.5, 1.0], rtol=1e-3)

    def test_limits_can_be_kept_from_one_step_to_the_next(self):
        """From the largest velocity the largest acceleration still leads to what an action can do."""
        plant = Plant.of(self.recorded(), self.SPEC)
        assert plant is not None
        most, top = plant.limits
        wanted = top + most * DT
        np.testing.assert_allclose(plant.next_velocities(top, plant.actions_for(top, wanted)), wanted, rtol=1e-6)
        np.testing.assert_array_less(0.5 * np.array(self.PUSH), top)

    def test_what_velocities_would_explain_is_no_such_plant(self):
        """With inertia that nobody observes, actions alone say little of where positions go."""
        assert Plant.of(self.recorded(inertia=0.8), self.SPEC) is None
