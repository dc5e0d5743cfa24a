from __future__ import annotations

import numpy as np
import pytest
import torch

from diffplan.planner.episodes import Episodes
from diffplan.planner.normalizer import KINDS, Normalizer


def table(episodes: Episodes, arrived: float = 1.0) -> torch.Tensor:
    """All states as rows (S, D)."""
    last = np.full((len(episodes.actions), 1), arrived, np.float32)
    return torch.from_numpy(np.hstack([episodes.actions, episodes.observations, last]))


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_inverse_pair(self, episodes, spec, kind, generator):
        normalizer = Normalizer.fit(episodes, spec, kind)
        path = 5 * torch.randn(3, 4, spec.width, generator=generator)
        torch.testing.assert_close(normalizer.denormalize(normalizer.normalize(path)), path)
        torch.testing.assert_close(normalizer.normalize(normalizer.denormalize(path)), path)

    def test_arrived_is_left_alone(self, episodes, spec, kind):
        normalizer = Normalizer.fit(episodes, spec, kind)
        for value in (-1.0, 1.0):
            assert (normalizer(table(episodes, value))[:, -1] == value).all()

    def test_constant_column_is_only_shifted(self, episodes, spec, kind):
        observations = episodes.observations.copy()
        observations[:, 1] = 7.0
        normalizer = Normalizer.fit(Episodes(observations, episodes.actions, episodes.offsets), spec, kind)
        row = torch.zeros(spec.width)
        row[3] = 9.5
        assert normalizer.normalize(row)[3] == pytest.approx(2.5)

    def test_saved_and_loaded_exactly(self, episodes, spec, kind, tmp_path):
        normalizer = Normalizer.fit(episodes, spec, kind)
        normalizer.save_pretrained(tmp_path)
        loaded = Normalizer.from_pretrained(tmp_path)
        assert loaded.config.kind == kind
        assert torch.equal(loaded.center, normalizer.center)
        assert torch.equal(loaded.scale, normalizer.scale)

    def test_statistics_of_network_units(self, episodes, spec, kind):
        data = Normalizer.fit(episodes, spec, kind).normalize(table(episodes))[:, :-1]
        if kind == "limits":
            expected, got = (-torch.ones(6), torch.ones(6)), (data.amin(0), data.amax(0))
        else:
            expected, got = (torch.zeros(6), torch.ones(6)), (data.mean(0), data.std(0))
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_refusals(episodes, spec):
    with pytest.raises(ValueError, match="'squash'"):
        Normalizer(3, kind="squash")
    narrow = Episodes(episodes.observations[:, :3], episodes.actions, episodes.offsets)
    with pytest.raises(ValueError, match="2 action and 3 observation"):
        Normalizer.fit(narrow, spec)
