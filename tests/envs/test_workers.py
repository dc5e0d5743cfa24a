"""Environments in other processes: the same to the bit as in this one, whatever happens to them, and gone with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffplan.envs import simulators as module
from diffplan.envs import workers
from diffplan.envs.parallel import alone
from diffplan.envs.simulators import MANY, Simulators
from diffplan.envs.tasks import find_task
from diffplan.envs.workers import POSSIBLE, spreadable

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="processes are copied on Linux alone")

STEPS, COUNT = 15, 5
SEEDS = [31, 32, 33, 34, 35]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """MuJoCo writes its log into the folder where it runs; and there are three cores, whatever there are."""
    monkeypatch.chdir(tmp_path)
    for each in (module, workers):
        monkeypatch.setattr(each, "cores", lambda: 3)


@pytest.fixture(autouse=True, scope="module")
def afterwards():
    yield
    workers._links.cache_clear()


def run(name: str, processes: int, *, spoil: bool = False, episodes: int = 2) -> list:
    """All that is seen of some episodes; an environment may be given an action that is no number."""
    task, rng, seen = find_task(name), np.random.default_rng(0), []
    with Simulators(task, COUNT, processes=processes) as simulators:
        for episode in range(episodes):
            seen += simulators.reset([seed + episode for seed in SEEDS])
            for step in range(STEPS):
                actions = rng.uniform(-1, 1, (COUNT, len(task.spec.action_names)))
                if spoil and step == 7 and episode == 0:
                    actions[3] = np.nan
                seen += [*simulators.step(actions), dict(simulators.faults)]
    return seen


def assert_same(got: list, want: list) -> None:
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        if isinstance(one, dict):
            assert one == other
        else:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("processes", [2, 3, 9])
@pytest.mark.parametrize("name", ["maze2d-umaze", "halfcheetah-medium", "fetch-reach"])
def test_they_do_what_they_do_in_one_process_to_the_bit(name, processes):
    assert_same(run(name, processes), run(name, 1))


def test_one_that_falls_is_left_alone():
    """Hoppers that are pushed about at random fall within a few steps."""
    task, seen = find_task("hopper-medium"), []
    for processes in (1, 2):
        with Simulators(task, 3, processes=processes) as simulators:
            simulators.reset([1, 2, 3])
            rng = np.random.default_rng(0)
            seen.append([simulators.step(rng.uniform(-1, 1, (3, 3))) for _ in range(60)])
    assert seen[0][-1][2].any()
    for one, other in zip(*seen, strict=True):
        assert_same(list(one), list(other))


def test_one_that_breaks_is_named_and_the_next_episode_begins_anew():
    serial, spread = (run("halfcheetah-medium", processes, spoil=True) for processes in (1, 3))
    assert_same(spread, serial)
    faults = [each for each in spread if isinstance(each, dict)]
    assert [list(each) for each in faults] == [[]] * 7 + [[3]] * (STEPS - 7) + [[]] * STEPS
    assert faults[STEPS - 1][3].startswith("environment 3 broke at step 8: the reward is not finite")


def test_starts_and_goals_are_as_asked_for():
    task = find_task("maze2d-umaze")
    with Simulators(task, 4, start=[1.0, 1.0], goal=[-1.0, 1.0], processes=2) as simulators:
        observations, goals = simulators.reset([1, 2, 3, 4])
        np.testing.assert_array_equal(observations, [[1, 1, 0, 0]] * 4)
        np.testing.assert_array_equal(goals, [[-1, 1]] * 4)
        simulators.start = [1.0, -1.0]
        assert simulators.reset([1, 2, 3, 4])[0][:, 1].tolist() == [-1] * 4


def test_several_groups_do_not_disturb_each_other():
    names = ("maze2d-umaze", "halfcheetah-medium")
    groups = [Simulators(find_task(name), 3, processes=2) for name in names]
    rivals = [Simulators(find_task(name), 3, processes=1) for name in names]
    for made in (groups, rivals):
        for group in made:
            group.reset([5, 6, 7])
    for group, rival in zip(groups, rivals, strict=True):
        for _ in range(4):
            actions = np.full((3, len(group.task.spec.action_names)), 0.3)
            assert_same(list(group.step(actions)), list(rival.step(actions)))
    for each in (*groups, *rivals):
        each.close()


def test_closing_twice_does_nothing_and_the_processes_stay():
    simulators = Simulators(find_task("maze2d-umaze"), 4, processes=2)
    before = [id(link) for link in workers._links(os.getpid())]
    simulators.close()
    simulators.close()
    assert [id(link) for link in workers._links(os.getpid())] == before
    here = Simulators(find_task("maze2d-umaze"), 1)
    here.close()
    here.close()


def test_what_was_returned_stays_as_it_was():
    with Simulators(find_task("maze2d-umaze"), 2, processes=2) as simulators:
        simulators.reset([1, 2])
        first = simulators.step(np.ones((2, 2)))
        kept = [part.copy() for part in first]
        simulators.step(np.ones((2, 2)))
        assert_same(list(first), kept)


class TestWhatGoesWrong:
    def test_what_a_task_refuses_is_refused_and_the_group_goes_on(self):
        task = find_task("halfcheetah-medium")
        with Simulators(task, 2, start=[0.0], processes=2) as simulators:
            with pytest.raises(ValueError, match="cannot place its agent"):
                simulators.reset([1, 2])
            simulators.start = None
            assert simulators.reset([1, 2])[0].shape == (2, 17)

    def test_an_environment_that_cannot_be_made(self):
        task = replace(find_task("maze2d-umaze"), make="Nowhere-v0")
        with pytest.raises(Exception, match="Nowhere"):
            Simulators(task, 2, processes=2)

    @pytest.mark.parametrize("seeds", [[1, 2, 3], [1, 2, 3, 4, 5]])
    def test_too_few_seeds_or_too_many(self, seeds):
        with Simulators(find_task("maze2d-umaze"), 4, processes=2) as simulators, pytest.raises(ValueError):
            simulators.reset(seeds)

    def test_an_answer_that_was_not_heard_is_nobodys(self, monkeypatch):
        """The user interrupts while environments are stepped."""
        task = find_task("maze2d-umaze")
        with Simulators(task, 4, processes=2) as simulators:
            simulators.reset([1, 2, 3, 4])
            hear = workers.Connection.recv
            monkeypatch.setattr(workers.Connection, "recv", interrupted)
            with pytest.raises(KeyboardInterrupt):
                simulators.step(np.zeros((4, 2)))
            monkeypatch.setattr(workers.Connection, "recv", hear)
            with pytest.raises(RuntimeError, match="died"):
                simulators.step(np.zeros((4, 2)))
        with Simulators(task, 4, processes=2) as others:
            assert others.reset([1, 2, 3, 4])[0].shape == (4, 4)

    def test_a_process_that_dies_is_said_to_have_died_and_the_next_ones_live(self):
        task = find_task("maze2d-umaze")
        simulators = Simulators(task, 4, processes=2)
        simulators.reset([1, 2, 3, 4])
        for pid in children_of(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="died"):
            simulators.step(np.zeros((4, 2)))
        simulators.close()
        with Simulators(task, 4, processes=2) as others:
            assert others.reset([1, 2, 3, 4])[0].shape == (4, 4)


def interrupted(*_):
    raise KeyboardInterrupt


class TestWhenItPays:
    @pytest.fixture
    def spread(self, monkeypatch) -> list:
        """How many processes were asked for."""
        asked: list[int] = []
        monkeypatch.setattr(module, "Spread", lambda task, count, processes, first: Nothing(asked.append(processes)))
        return asked

    def test_many_are_spread_over_all_cores(self, spread, monkeypatch):
        task = replace(find_task("maze2d-umaze"), make=lambda render_mode=None: Nothing())
        monkeypatch.setattr(module, "spreadable", lambda task: True)
        assert len(Simulators(task, MANY).envs) == -(-MANY // 3)
        assert spread == [2]

    def test_few_are_not(self, spread):
        Simulators(find_task("maze2d-umaze"), 3).close()
        assert spread == []

    @pytest.mark.parametrize("reason", ["drawn", "not alone", "one core", "nameless"])
    def test_nor_are_many_where(self, spread, monkeypatch, reason):
        task = replace(find_task("maze2d-umaze"), make=lambda render_mode=None: Nothing())
        if reason != "nameless":
            monkeypatch.setattr(module, "spreadable", lambda task: True)
        if reason == "not alone":
            monkeypatch.setattr(module.multiprocessing, "parent_process", lambda: "somebody")
        if reason == "one core":
            monkeypatch.setattr(module, "cores", lambda: 1)
        Simulators(task, MANY, render_mode="rgb_array" if reason == "drawn" else None).close()
        assert spread == []

    def test_tasks_have_names_everywhere(self):
        assert all(spreadable(find_task(name)) for name in ("maze2d-large", "ant-medium", "fetch-push"))
        assert not spreadable(replace(find_task("maze2d"), make=lambda render_mode=None: None))


class Nothing:
    def __init__(self, *_) -> None:
        self.making = contextlib.nullcontext

    def close(self) -> None:
        pass


SCRIPT = """
import time
import numpy as np
from diffplan.envs.simulators import Simulators
from diffplan.envs.tasks import find_task

simulators = Simulators(find_task("maze2d-umaze"), 4, processes=2)
simulators.reset([1, 2, 3, 4])
open("ready", "w").close()
{then}
"""


@pytest.mark.parametrize(
    ("then", "end"),
    [("time.sleep(60)", signal.SIGKILL), ("time.sleep(60)", signal.SIGINT), ("", None)],
    ids=["killed", "interrupted", "done"],
)
def test_they_leave_with_who_asked_for_them(tmp_path, then, end):
    """Without a guard of __main__, which scripts often lack."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(then=then))
    asking = subprocess.Popen([sys.executable, script], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    found: set[int] = set()
    try:
        assert eventually(lambda: found.update(children_of(asking.pid)) or (tmp_path / "ready").exists(), 60)
        found.update(children_of(asking.pid))
        if end is not None:
            asking.send_signal(end)
        said = asking.communicate(timeout=30)[1]
    finally:
        asking.kill()
        asking.wait()
    # On two cores: the one that imports, and the one that it becomes.
    assert len(found) >= 2 and eventually(lambda: not any(is_running(pid) for pid in found), 20)
    assert said == "" or end == signal.SIGINT


def test_in_one_of_several_processes_nothing_is_spread():
    assert alone(eval, f"__import__('diffplan.envs.simulators').envs.simulators._worth(None, {MANY})") == 1


def children_of(pid: int) -> list[int]:
    """Processes that a process has started, and those that they have."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                    found += [int(entry.name), *children_of(int(entry.name))]
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(look, seconds: float) -> bool:
    """Whether something is seen before patience ends."""
    end = time.monotonic() + seconds
    while not (seen := look()) and time.monotonic() < end:
        time.sleep(0.05)
    return bool(seen)
