"""Work on all cores: the same results in the same order, and a message where a process dies."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffplan.envs.parallel import alone, cores, on_all_cores

# `eval` is what a fresh process finds without importing these tests
JOBS = [f"(__import__('time').sleep({0.3 * (job == 0)}), {job}, __import__('os').getpid())" for job in range(6)]


@pytest.mark.parametrize("most", [1, 2])
def test_results_come_in_order_from_as_many_processes_as_asked_for(most):
    found = list(on_all_cores(eval, JOBS, most=most))
    assert [job for _, job, _ in found] == list(range(6))
    assert len({pid for *_, pid in found}) == most
    assert (os.getpid() in {pid for *_, pid in found}) == (most == 1)


def test_alone_it_is_done_by_a_process_of_its_own():
    found = {alone(eval, "__import__('os').getpid()") for _ in range(2)}
    assert len(found) == 2 and os.getpid() not in found
    with pytest.raises(RuntimeError, match="1 worker processes died"):
        alone(os._exit, 9)


def test_no_jobs_no_processes():
    assert list(on_all_cores(eval, [])) == []
    assert cores() >= 1


def test_a_process_that_dies_is_said_to_have_died():
    with pytest.raises(RuntimeError, match="2 worker processes died"):
        list(on_all_cores(os._exit, [9, 9], most=2))


def test_what_the_work_refuses_is_refused():
    with pytest.raises(ValueError, match="invalid literal"):
        list(on_all_cores(int, ["1", "one"], most=2))


def test_workers_leave_with_a_parent_that_is_killed(tmp_path):
    """Each says its process id and would work for a minute."""
    work = (
        f"(open({str(tmp_path)!r} + '/' + str(__import__('os').getpid()), 'w').close(), __import__('time').sleep(60))"
    )
    call = f"list(on_all_cores(eval, [{work!r}] * 2, most=2))"
    code = f"from diffplan.envs.parallel import on_all_cores\nif __name__ == '__main__': {call}"
    script = tmp_path / "parent.py"
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, script], cwd=tmp_path)
    try:
        workers = eventually(
            lambda: [int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()], lambda w: len(w) == 2
        )
    finally:
        parent.kill()
        parent.wait()
    assert eventually(lambda: [w for w in workers if is_running(w)], lambda left: not left) == []


def eventually(look, enough, seconds=20.0):
    """What is seen once it is enough, or when patience ends."""
    end = time.monotonic() + seconds
    while not enough(seen := look()) and time.monotonic() < end:
        time.sleep(0.1)
    return seen


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
