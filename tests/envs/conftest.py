"""What the tests of runs share."""

from __future__ import annotations

import functools

import pytest


@pytest.fixture
def quick_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs judge their return model by few windows and draw no plans while they train: that takes most of a tiny run.

    The session's `run_folder` is made as users make theirs.
    """
    from diffplan.envs import calibration, logs

    monkeypatch.setattr(calibration, "calibrate", functools.partial(calibration.calibrate, samples=32))
    monkeypatch.setattr(calibration, "_draw", lambda *_: None)
    monkeypatch.setattr(logs.Logger, "_picture", lambda *_: None)
