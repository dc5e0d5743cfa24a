"""What networks are asked to say, against networks that know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffplan.planner.diffusion import regression_target, signal_and_noise
from diffplan.planner.episodes import Episodes
from diffplan.planner.normalizer import Normalizer
from diffplan.planner.objectives import denoising, draw_pins, entry_weights, predicting_returns
from diffplan.planner.schedulers import make_scheduler
from diffplan.planner.spec import TrajectorySpec
from diffplan.planner.training import TrainConfig
from diffplan.planner.windows import Windows

LEVELS = make_scheduler(train_steps=8).alphas_cumprod
CONFIG = TrainConfig(steps=1, batch_size=256)
DISCOUNT = 0.9


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def constant() -> Episodes:
    """Ten episodes that stand at a place of their own, where every step earns what x says."""
    places = np.linspace(-3, 2, 10)
    return Episodes.from_arrays(
        [np.tile([x, 1.0, 0.0, 0.0], (21, 1)) for x in places],
        [np.zeros((20, 2))] * 10,
        [np.full(20, x) for x in places],
    )


class TestReturns:
    def ask(self, model, episodes, spec, standardize=lambda r: r, generator=None):
        windows = Windows(episodes, spec, horizon=6, discount=DISCOUNT)
        normalizer = Normalizer.fit(episodes, spec)
        objective = predicting_returns(windows, normalizer, LEVELS, CONFIG, standardize=standardize)
        return objective(model, generator or seeded(0))

    @pytest.mark.parametrize(("center", "scale"), [(0.0, 1.0), (-5.0, 20.0)])
    def test_who_knows_the_return_has_no_loss(self, constant, spec, center, scale):
        """The start is pinned, so its place can be read at any noise level: x / (1 - discount)."""
        normalizer = Normalizer.fit(constant, spec)

        def knows(noisy, timestep, pinned):
            assert pinned[:, 0, spec.observations].all()
            return (normalizer.denormalize(noisy)[:, 0, 2] / (1 - DISCOUNT) - center) / scale

        loss, info = self.ask(knows, constant, spec, lambda returns: (returns - center) / scale)
        assert loss.item() == pytest.approx(0, abs=1e-6)
        assert info["return_loss"].item() == pytest.approx(0, abs=1e-6)
        assert info["return_r2"].item() == pytest.approx(1, abs=1e-5)

    def test_who_says_a_constant_explains_nothing(self, constant, spec):
        """The loss is the mean squared distance of returns from it, which the returns' mean makes their variance."""
        targets = []

        def record(returns):
            targets.append(returns)
            return returns

        loss, _ = self.ask(lambda x, t, p: torch.zeros(len(x)), constant, spec, record)
        assert loss.item() == pytest.approx(targets[0].square().mean().item(), rel=1e-5)
        mean = targets[0].mean()
        loss, info = self.ask(lambda x, t, p: mean.expand(len(x)), constant, spec)
        assert loss.item() == pytest.approx(targets[0].var(correction=0).item(), rel=1e-5)
        assert info["return_r2"].item() == pytest.approx(0, abs=0.01)

    def test_every_noise_level_is_asked_about_and_pins_are_clean(self, rewarded, spec):
        """At the highest level what is free is noise alone; what is pinned lies in the data's range."""
        seen = []

        def watch(noisy, timestep, pinned):
            seen.append((noisy, timestep, pinned))
            return torch.zeros(len(noisy))

        self.ask(watch, rewarded, spec)
        ((noisy, timestep, pinned),) = seen
        assert set(timestep.tolist()) == set(range(8))
        assert noisy.shape == pinned.shape == (256, 6, spec.width)
        assert noisy[timestep == 7][~pinned[timestep == 7]].std() == pytest.approx(1, abs=0.1)
        assert noisy[pinned].abs().max() <= 1 + 1e-5

    def test_a_generator_is_a_batch(self, rewarded, spec, make_returns):
        a, b, other = (self.ask(make_returns(), rewarded, spec, generator=seeded(s))[0] for s in (1, 1, 2))
        assert a == b != other

    def test_gradients_flow_into_the_model_alone(self, rewarded, spec, make_returns):
        model = make_returns()
        loss, info = self.ask(model, rewarded, spec)
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        assert not any(v.requires_grad for v in info.values())

    def test_windows_without_a_discount_are_refused(self, rewarded, spec, make_returns):
        windows = Windows(rewarded, spec, horizon=6)
        objective = predicting_returns(windows, Normalizer.fit(rewarded, spec), LEVELS, CONFIG, standardize=lambda r: r)
        with pytest.raises(ValueError, match="without a discount"):
            objective(make_returns(), seeded(0))


class TestDenoising:
    @pytest.mark.parametrize("prediction", ["x0", "eps", "v"])
    def test_who_knows_the_window_has_no_loss(self, constant, spec, prediction):
        """All windows last one token, so that the start says everything about them."""
        config = replace(CONFIG, prediction=prediction)
        windows = Windows(constant, spec, horizon=2)
        normalizer = Normalizer.fit(constant, spec)

        def knows(noisy, timestep, pinned):
            alpha, sigma = signal_and_noise(LEVELS, timestep)
            clean = torch.zeros_like(noisy)
            clean[..., 2] = noisy[:, :1, 2]  # the start is pinned, and all stay there
            clean[..., spec.arrived] = torch.tensor([-1.0, 1.0])
            clean = torch.where(pinned, noisy, clean)
            return regression_target(clean, (noisy - alpha * clean) / sigma, alpha, sigma, prediction)

        loss, info = denoising(windows, normalizer, LEVELS, config)(knows, seeded(0))
        assert loss.item() == pytest.approx(0, abs=1e-6)
        assert info["clean_error"].item() == pytest.approx(0, abs=1e-6)

    def test_the_action_weight_weighs_the_actions(self, constant, spec):
        """Actions off by 1 and all else known: the loss is their share of the weight."""
        windows, normalizer = Windows(constant, spec, horizon=2), Normalizer.fit(constant, spec)
        free = []

        def off(noisy, timestep, pinned):
            free.append(~pinned)
            said = torch.zeros_like(noisy)
            said[..., 2] = noisy[:, :1, 2]
            said[..., spec.arrived] = torch.tensor([-1.0, 1.0])
            said[..., spec.actions] += 1.0
            return said

        for weight in (0.1, 1.0):
            config = replace(CONFIG, action_weight=weight)
            even = torch.ones_like(LEVELS) * 0.5  # one level, so that every window counts alike
            loss, _ = denoising(windows, normalizer, even, config)(off, seeded(0))
            actions, rest = free[-1][..., spec.actions].sum().item(), free[-1][..., 2:].sum().item()
            assert loss.item() == pytest.approx(weight * actions / (weight * actions + rest), rel=1e-4)


class TestPins:
    COUNT, HORIZON = 40_000, 8

    def share(self, spec, token, column, generator):
        length = torch.ones(self.COUNT, dtype=torch.long)
        pins = draw_pins(spec, length, self.HORIZON, generator)
        assert pins.shape == (self.COUNT, self.HORIZON, spec.width)
        return pins[:, token, column].float().mean().item()

    @pytest.mark.parametrize(
        ("token", "column", "expected"),
        [
            (0, "x", 1.0),
            (0, "vy", 1.0),
            (-1, "arrived", 0.9),
            (0, "arrived", 0.0),
            (3, "arrived", 0.0),
            (-1, "x", 1 - 0.95 * 0.1 * (1 - 0.1 / 8)),
            (-1, "vx", 1 - 0.95 * (1 - 0.9 * 0.2)),
            (3, "y", 1 - 0.95 * (1 - 0.1 / 8)),
            (3, "vy", 0.05),
            (0, "fx", 0.05),
            (-1, "fy", 0.05),
        ],
    )
    def test_frequencies(self, spec, generator, token, column, expected):
        names = (*spec.action_names, *spec.observation_names, "arrived")
        got = self.share(spec, token, names.index(column), generator)
        spread = (expected * (1 - expected) / self.COUNT) ** 0.5
        assert got == pytest.approx(expected, abs=4.5 * spread + 1e-6)

    def test_what_belongs_together_is_pinned_together(self, spec, generator):
        pins = draw_pins(spec, torch.ones(2000, dtype=torch.long), self.HORIZON, generator)
        for columns in (pins[..., spec.actions], pins[..., spec.position_columns]):
            assert torch.equal(columns.all(-1), columns.any(-1))
        whole = pins[..., spec.actions].flatten(1)
        assert torch.equal(whole.all(1), whole.any(1))

    def test_tasks_without_positions_or_velocities(self, generator):
        length = torch.ones(500, dtype=torch.long)
        bare = draw_pins(TrajectorySpec(("a",), ("p", "q")), length, 5, generator)
        assert bare[:, 0, 1:3].all()
        assert not bare[..., 3].any()
        still = draw_pins(TrajectorySpec(("a",), ("p", "q"), ("p",)), length, 5, generator)
        assert 0.8 < still[:, -1, 3].float().mean() < 1


def test_later_tokens_may_weigh_less(spec):
    same = entry_weights(spec, 4, TrainConfig(steps=1, first_action_weight=10))
    less = entry_weights(spec, 4, TrainConfig(steps=1, first_action_weight=10, token_discount=0.5))
    torch.testing.assert_close(less, same * torch.tensor([1, 0.5, 0.25, 0.125])[:, None])


def test_entry_weights(spec):
    same = entry_weights(spec, 2, TrainConfig(steps=1, action_weight=0.25))
    assert same.tolist() == [[0.25, 0.25, 1, 1, 1, 1, 1]] * 2
    config = TrainConfig(steps=1, action_weight=0.25, first_action_weight=10)
    first, alone = entry_weights(spec, 2, config), entry_weights(spec, 2, config, state_only=True)
    assert (alone[1, spec.observations] == 10).all()
    torch.testing.assert_close(alone[0], first[0])
    assert first.tolist() == [[10, 10, 1, 1, 1, 1, 1], [0.25, 0.25, 1, 1, 1, 1, 1]]
