"""What the tests of runs share."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def quicken() -> Callable[[pytest.MonkeyPatch], None]:
    """Makes runs judge their return model by few windows and draw no plans while they train: most of a tiny run's time.

    The session's `run_folder` is made as users make theirs.
    """
    from diffplan.envs import calibration, logs

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(calibration, "calibrate", functools.partial(calibration.calibrate, samples=32))
        monkeypatch.setattr(calibration, "_draw", lambda *_: None)
        monkeypatch.setattr(logs.Logger, "_picture", lambda *_: None)

    return patch


@pytest.fixture
def quick_reports(quicken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this test are `quicken`ed."""
    quicken(monkeypatch)


@pytest.fixture(scope="module")
def drawing() -> None:
    """Skips where nothing draws."""
    from diffplan.envs.backend import use_backend

    if use_backend() is None:
        pytest.skip("no backend of MuJoCo draws here")
