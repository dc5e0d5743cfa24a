"""Which controller follows whose plans: racing wherever nothing speaks against it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from diffplan.envs.control import executor_for
from diffplan.envs.simulators import Simulators
from diffplan.envs.tasks import find_task
from diffplan.planner.controllers import InverseController, PlannedActions, RacingController, TrackingController
from diffplan.planner.guides import Guide
from diffplan.planner.inverse import InverseDynamics
from diffplan.planner.options import Sampling
from diffplan.planner.plant import Plant

TASK = find_task("maze2d")
PLANNER = SimpleNamespace(plant=Plant(2, TASK.spec.dt_seconds, (9, 9)), inverse=None, sampling=Sampling())
BARE = SimpleNamespace(plant=None, inverse=None)
INVERSE = InverseDynamics(4, 2)
GUIDE = Guide.of(lambda spec, path: path.sum((1, 2)), "any")


def made(planner=PLANNER, task=TASK, **options):
    return executor_for(planner, task, None, **options)


class TestAuto:
    def test_it_races_with_a_plant(self):
        executor = made()
        assert isinstance(executor.controller, RacingController)
        assert executor.controller.plant is PLANNER.plant
        assert executor.controller.position == tuple(TASK.spec.position_indices)
        assert executor.controller.velocity == tuple(TASK.spec.velocity_indices)
        assert executor.hasten is not None
        assert executor.tempo == 1.0
        assert executor.replan_every == TASK.replan_every

    @pytest.mark.parametrize(
        "against",
        [
            {"planner": BARE},
            {"guide": GUIDE},
            {"tempo": 1.0},
            {"controller": "tracking"},
        ],
        ids=["no plant", "a guide", "a tempo", "another controller"],
    )
    def test_it_tracks_where_something_speaks_against_it(self, against):
        executor = made(**against)
        assert isinstance(executor.controller, TrackingController)
        assert executor.hasten is None
        assert executor.tempo == against.get("tempo", TASK.tempo)

    @pytest.mark.parametrize("planner", [PLANNER, BARE])
    def test_it_applies_planned_actions_where_the_task_has_no_gains(self, planner):
        executor = made(planner, replace(TASK, gains=None))
        assert isinstance(executor.controller, PlannedActions)
        assert executor.hasten is None

    @pytest.mark.parametrize(
        ("alone", "guide", "follows"), [(True, None, True), (False, GUIDE, True), (False, None, False)]
    )
    def test_states_are_followed_where_actions_say_less(self, alone, guide, follows):
        """There are none of their own, or a guide has bent the states; but not where gains do it without learning."""
        planner = SimpleNamespace(plant=None, inverse=INVERSE, config=SimpleNamespace(state_only=alone))
        executor = made(planner, replace(TASK, gains=None, action_limit=0.5), tempo=None, guide=guide)
        assert executor.controller == (InverseController(INVERSE, 0.5) if follows else PlannedActions(0.5))
        assert isinstance(made(planner, guide=guide).controller, TrackingController)
        assert isinstance(made(planner, controller="actions").controller, PlannedActions)


class TestByName:
    def test_racing_is_not_refused_for_a_guide(self):
        executor = made(controller="racing", guide=GUIDE, replan_every=7)
        assert isinstance(executor.controller, RacingController)
        assert executor.guide is GUIDE
        assert executor.replan_every == 7

    @pytest.mark.parametrize("name", ["racing", "retimed"])
    def test_racing_needs_a_plant(self, name):
        with pytest.raises(ValueError, match="needs a plant fitted to the data.*train it again"):
            made(BARE, controller=name)

    def test_retimed_races_where_the_plan_goes(self):
        executor = made(controller="retimed")
        assert isinstance(executor.controller, RacingController)
        assert executor.hasten.keywords == {"bent": False}
        assert made().hasten.keywords.get("bent", True)

    @pytest.mark.parametrize(("name", "kind"), [("tracking", TrackingController), ("actions", PlannedActions)])
    def test_the_others_do_not_race(self, name, kind):
        executor = made(controller=name)
        assert isinstance(executor.controller, kind)
        assert executor.hasten is None

    def test_unknown_ones_are_refused(self):
        with pytest.raises(ValueError, match="unknown controller 'pid'"):
            made(controller="pid")


def test_the_fitted_plant_is_the_simulators(data):
    """What was fitted to noisy demonstrations foretells every step of the simulator, away from walls."""
    from diffplan.envs.datasets import dataset_of, load_episodes

    plant = Plant.fit(load_episodes(dataset_of(TASK), TASK), TASK.spec)
    rng = np.random.default_rng(0)
    start = TASK.maze.center(TASK.maze.free_cells[0])
    with Simulators(TASK, 1, start=start) as simulators:
        states, actions = [simulators.reset([0])[0][0]], rng.uniform(-1, 1, (15, 2))
        for action in actions:
            states.append(simulators.step(action[None])[0][0])
    velocity = np.array(states)[:, 2:]
    got = plant.actions_for(velocity[:-1], velocity[1:])
    np.testing.assert_allclose(got, actions, atol=2e-3)
