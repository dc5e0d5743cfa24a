"""Work on all cores: the same results in the same order, and a message where a process dies."""

import os

import pytest

from diffplan.envs.parallel import cores, on_all_cores

# `eval` is what a fresh process finds without importing these tests
JOBS = [f"(__import__('time').sleep({0.3 * (job == 0)}), {job}, __import__('os').getpid())" for job in range(6)]


@pytest.mark.parametrize("most", [1, 2])
def test_results_come_in_order_from_as_many_processes_as_asked_for(most):
    found = list(on_all_cores(eval, JOBS, most=most))
    assert [job for _, job, _ in found] == list(range(6))
    assert len({pid for *_, pid in found}) == most
    assert (os.getpid() in {pid for *_, pid in found}) == (most == 1)


def test_no_jobs_no_processes():
    assert list(on_all_cores(eval, [])) == []
    assert cores() >= 1


def test_a_process_that_dies_is_said_to_have_died():
    with pytest.raises(RuntimeError, match="2 worker processes died"):
        list(on_all_cores(os._exit, [9, 9], most=2))


def test_what_the_work_refuses_is_refused():
    with pytest.raises(ValueError, match="invalid literal"):
        list(on_all_cores(int, ["1", "one"], most=2))
