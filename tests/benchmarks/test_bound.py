"""The bound against MuJoCo: nothing that the simulation does is faster, and tracking the fastest way comes close."""

import builtins
import math

import numpy as np
import pytest

from diffplan.benchmarks import bound
from diffplan.benchmarks.baselines import WaypointPolicy, run_policy
from diffplan.benchmarks.bound import SPEED_CAP, STEP_SECONDS, bound_rewards, fastest, routes
from diffplan.benchmarks.evaluate import episode_seeds, summarize
from diffplan.benchmarks.metrics import first_touch
from diffplan.envs.maze import LARGE, MEDIUM, UMAZE, MazeMap
from diffplan.envs.tasks import find_task

CORRIDOR = MazeMap(("##########", "#OOOOOOOO#", "##########"))
SQUARE = MazeMap(("######", "#OOOO#", "#OOOO#", "#OOOO#", "#OOOO#", "######"))
CONTACT = 0.1026  # metres at which MuJoCo begins to push


@pytest.fixture(scope="module")
def env():
    made = find_task("multi2d-umaze").environment()
    yield made
    made.close()


@pytest.fixture(scope="module")
def open_env():
    """The point mass far from any wall."""
    from gymnasium_robotics.envs.maze.point import PointEnv

    made = PointEnv()
    yield made
    made.close()


def first_inside(step, state, goal, act, *, radius=0.5, limit=400):
    """First step, from 1, after which a policy act(step, observation) is inside; None if it never is."""
    seen = state
    for k in range(1, limit + 1):
        seen = step(np.clip(act(k, seen), -1, 1))
        if np.hypot(*(seen[:2] - goal)) <= radius:
            return k
    return None


def at(plan, time):
    """Position and velocity that an observation shows at a time of a plan."""
    k = int(np.clip(np.searchsorted(plan.times, time) - 1, 0, len(plan.times) - 2))
    gap = max(plan.times[k + 1] - plan.times[k], 1e-12)
    v0, v1 = plan.velocities[k : k + 2]
    v = v0 + (v1 - v0) * min((time - plan.times[k]) / gap, 1.0)
    return plan.path[k] + (time - plan.times[k]) * (v0 + v) / 2 + STEP_SECONDS / 2 * (v - v0), v


def tracker(plan, goal, *, gain, tempo):
    """A controller with a model: what brings the next observation onto the plan, run slower by a tempo below one."""

    def act(k, seen):
        time = k * STEP_SECONDS * tempo
        x, v = at(plan, time) if time <= plan.times[-1] else (goal, np.zeros(2))
        want = tempo * v + gain * (x - seen[:2] - STEP_SECONDS * tempo * v)
        slow = np.clip(seen[2:], -5, 5)
        return ((want - slow) * (bound.MASS + STEP_SECONDS) / STEP_SECONDS + slow) / bound.FORCE

    return act


def maze_step(env, state):
    env.point_env.set_state(state[:2], state[2:])
    return lambda action: env.step(action)[0]["observation"]


@pytest.mark.parametrize(
    ("maze", "start", "goal", "force"),
    [
        (CORRIDOR, (-3.5, 0, 0, 0), (3.4, 0), (1, 0)),
        (CORRIDOR, (-3.5, 0, -0.3, 0), (-1.5, 0), (1, 0)),
        (CORRIDOR, (3.4, 0, 2.0, 0), (-1.6, 0), (-1, 0)),
        (SQUARE, (-1.5, -1.5, 0, 0), (1.5, 1.5), (1, 1)),
        (SQUARE, (-1.5, 1.5, 0, 0), (0.5, -0.5), (1, -1)),
    ],
)
def test_full_force_in_the_open_is_the_bound(open_env, maze, start, goal, force):
    start, goal = np.array(start, dtype=float), np.array(goal, dtype=float)
    open_env.set_state(start[:2], start[2:])
    simulated = first_inside(lambda a: open_env.step(a)[0], start, goal, lambda k, seen: np.array(force, dtype=float))
    found = fastest(maze, start, goal)
    assert simulated - 1 <= found.steps <= simulated


@pytest.mark.parametrize("metres", [0.3, 1.0, 2.0, 4.0, 6.0])
def test_closed_form_of_a_double_integrator_with_a_speed_cap(metres):
    """Without damping: full force up to the cap, then the cap. Damping takes at most v / FORCE, 5% of the force."""
    found = fastest(CORRIDOR, (-3.5, 0, 0, 0), (-3.0 + metres, 0))
    way = metres - STEP_SECONDS / 2 * SPEED_CAP  # what the observation is ahead of the motion, at the most
    times = []
    for force in (bound.FORCE, bound.FORCE - SPEED_CAP * bound.DAMPING):
        a = force / bound.INERTIA
        ramp = SPEED_CAP**2 / (2 * a)
        times.append(math.sqrt(2 * way / a) if way < ramp else SPEED_CAP / a + (way - ramp) / SPEED_CAP)
    assert times[0] - bound.SLACK_SECONDS - 1e-6 <= found.seconds <= times[1] + STEP_SECONDS / 2


@pytest.mark.parametrize(
    ("maze", "start", "goal"),
    [(UMAZE, (-0.95, -1.05, 0.1, -0.1), (-1.02, 0.96)), (LARGE, (4.5, 2.0, 0, 0), (2.5, -2.5))],
)
def test_mirrored_mazes_take_the_same_time(maze, start, goal):
    start, goal = np.array(start), np.array(goal)
    whole = fastest(maze, start, goal).seconds
    flips = {(-1, 1): tuple(row[::-1] for row in maze.rows), (1, -1): maze.rows[::-1]}
    for signs, rows in flips.items():
        turned = fastest(MazeMap(rows), start * (signs * 2), goal * signs)
        assert turned.seconds == pytest.approx(whole, abs=1e-5)
    turned = fastest(
        MazeMap(tuple("".join(c) for c in zip(*maze.rows, strict=True))), *(-swap(p) for p in (start, goal))
    )
    assert turned.seconds == pytest.approx(whole, abs=1e-5)


def swap(values):
    return np.asarray(values).reshape(-1, 2)[:, ::-1].ravel()


def test_a_plan_keeps_its_promises():
    """Ends are right, nothing is too fast, too strong or too near a wall, and no axis is sooner than it can be."""
    start, goal = np.array([4.5, 2.0, 0.1, -0.2]), np.array([-4.5, -2.95])
    found = fastest(LARGE, start, goal)
    np.testing.assert_allclose([*found.path[0], *found.velocities[0]], start, atol=1e-7)
    assert np.hypot(*(found.path[-1] - goal)) <= 0.5 + 1e-6
    assert np.abs(found.velocities).max() <= SPEED_CAP + 1e-6
    gaps = np.diff(found.times)[:, None]
    forces = (
        bound.INERTIA * np.diff(found.velocities, axis=0) + gaps * (found.velocities[1:] + found.velocities[:-1]) / 2
    )
    assert (np.abs(forces) <= bound.FORCE * gaps * (1 + 1e-3) + 1e-6).all()
    assert LARGE.clearance(found.path).min() >= bound.CLEARANCE - 1e-4
    axis_wise = (np.abs(start[:2] - goal).max() - 0.5) / SPEED_CAP
    assert found.seconds > axis_wise
    assert found.steps == math.ceil(found.seconds / STEP_SECONDS - 1e-6)


def test_a_larger_disc_is_reached_no_later():
    seconds = [fastest(UMAZE, (1, 1, 0, 0), (-0.95, -1.0), radius=r).seconds for r in (0.1, 0.2, 0.3, 0.4, 0.45, 0.5)]
    assert seconds == sorted(seconds, reverse=True) and seconds[0] > seconds[-1]


def test_inside_already():
    found = fastest(UMAZE, (1, 1, 0, 0), (0.8, 1))
    assert (found.seconds, found.steps, found.path.shape) == (0.0, 1, (1, 2))


def test_routes_are_all_ways_round():
    assert [len(r) for r in routes(UMAZE, (1, 1), (3, 1))] == [7]
    found = routes(MEDIUM, (1, 1), (2, 2))
    assert [len(r) for r in found] == [3, 3]
    assert all(len(set(r)) == len(r) for r in routes(LARGE, (1, 1), (7, 9)))


def test_the_shortest_route_need_not_be_the_fastest_one():
    """All routes are compared: the best of them is the answer."""
    task = find_task("multi2d-large")
    start, goal = np.array([*task.maze.center((7, 6)), 0, 0]), task.maze.center((3, 8))
    best = fastest(task.maze, start, goal)
    singles = []
    for cells in routes(task.maze, (7, 6), (3, 8)):
        singles.append(bound._solve(bound._phases(task.maze, cells, goal, 0.5), start, goal, 0.5).seconds)
    assert best.seconds == pytest.approx(min(singles)) and max(singles) > best.seconds + 0.1


def test_no_controller_is_sooner_and_tracking_comes_close(env, monkeypatch):
    """The waypoint controller, and the fastest ways at several clearances tracked at several tempi."""
    task, seeds = find_task("multi2d-umaze"), episode_seeds(1, 9)
    begun = [task.reset(env, np.random.default_rng(s)) for s in seeds]
    least = [fastest(task.maze, *pair).steps for pair in begun]
    touches = [first_touch(r) + 1 for r in run_policy(task, WaypointPolicy(task, seeds), seeds=seeds)]
    assert all(steps <= touch for steps, touch in zip(least, touches, strict=True))
    sooner = []
    for clearance in (0.05, CONTACT):
        monkeypatch.setattr(bound, "CLEARANCE", clearance)
        bound._programme.cache_clear()
        sooner.append([fastest(task.maze, *pair) for pair in begun])
    bound._programme.cache_clear()  # the clearance is part of a programme
    late = []
    for (state, goal), steps, *plans in zip(begun, least, *sooner, strict=True):
        acts = [tracker(p, goal, gain=5, tempo=t) for p in plans for t in (0.98, 1.0, 1.04) if len(p.times) > 1]
        tracked = [first_inside(maze_step(env, state), state, goal, act) for act in acts]
        late += [min(t for t in tracked if t) - steps] if acts else []
    assert min(late) >= 0
    assert np.mean(late) <= 2 and max(late) <= 4, late


def test_rewards_are_those_of_the_episodes_that_simulators_begin():
    task, seeds = find_task("maze2d-umaze"), episode_seeds(1, 5)
    rewards = list(bound_rewards(task, seeds))
    stats = summarize("time-optimal bound", task, rewards)
    assert stats.success_rate == 1.0 and stats.score_strict == stats.score_latched
    touches = [first_touch(r) for r in run_policy(task, WaypointPolicy(task, seeds), seeds=seeds)]
    assert all(r.shape == (task.episode_steps,) and first_touch(r) <= t for r, t in zip(rewards, touches, strict=True))


@pytest.mark.parametrize(
    ("start", "goal", "radius", "says"),
    [
        ((0, 0, 0, 0), (1, 1), 0.5, "start .* wall"),
        ((1, 1, 0, 0), (-1, 0), 0.5, "goal .* wall"),
        ((1, 1, 9, 0), (-1, 1), 0.5, "faster than 5.226"),
        ((1, 1, 0, 0), (-1, 1), 0.9, "radius=0.9"),
        ((1, 1), (-1, 1), 0.5, "shapes"),
    ],
)
def test_refusals_name_the_value(start, goal, radius, says):
    with pytest.raises(ValueError, match=says):
        fastest(UMAZE, start, goal, radius=radius)


def test_without_casadi_the_message_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "casadi":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    bound._programme.cache_clear()
    with pytest.raises(ValueError, match=r"diffplan\[bench\]"):
        fastest(UMAZE, (1, 1, 0, 0), (-1, 1))


def test_an_unsolved_programme_is_never_reported(monkeypatch):
    """Only iterates that IPOPT calls solved and that keep every constraint count; failing each guess is an error."""
    monkeypatch.setattr(bound, "FEASIBLE", -1.0)
    with pytest.raises(ValueError, match="IPOPT found no way"):
        fastest(UMAZE, (1, 1, 0, 0), (-1, 1))
