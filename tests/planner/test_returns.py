"""The return model: its form, and what a tiny one learns in a second."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from diffplan.planner.diffusion import noised
from diffplan.planner.normalizer import Normalizer
from diffplan.planner.objectives import draw_pins, predicting_returns
from diffplan.planner.returns import Calibration, ReturnModel, calibrate
from diffplan.planner.schedulers import make_scheduler
from diffplan.planner.training import TrainConfig, TrainState, train
from diffplan.planner.windows import Windows

LEVELS = make_scheduler(train_steps=8).alphas_cumprod
HORIZON, DISCOUNT = 8, 0.9


class TestTheModel:
    @pytest.mark.parametrize("horizon", [1, 2, 3, 7, 8, 33, 130])
    @pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 1, 2, 2)])
    def test_any_horizon_will_do(self, make_returns, spec, generator, horizon, multipliers):
        model, sample = make_returns(multipliers=multipliers), torch.randn(3, horizon, spec.width, generator=generator)
        with torch.no_grad():
            said = model(sample, torch.tensor([0, 3, 7]))
        assert said.shape == (3,)
        assert said.isfinite().all()
        assert len(said.unique()) == 3

    def test_windows_are_read_each_by_itself(self, make_returns, spec, generator):
        model, sample = make_returns(), torch.randn(4, 9, spec.width, generator=generator)
        pinned, t = torch.rand(sample.shape, generator=generator) < 0.3, torch.tensor([0, 2, 4, 6])
        with torch.no_grad():
            alone = [model(sample[i : i + 1], t[i : i + 1], pinned[i : i + 1]) for i in range(4)]
            torch.testing.assert_close(model(sample, t, pinned), torch.cat(alone))

    def test_one_timestep_stands_for_all(self, make_returns, spec, generator):
        model, sample = make_returns(), torch.randn(4, 8, spec.width, generator=generator)
        with torch.no_grad():
            every = model(sample, torch.full((4,), 5))
            assert torch.equal(model(sample, torch.tensor(5)), every)
            assert not torch.equal(model(sample, torch.tensor(6)), every)

    def test_nothing_pinned_is_a_mask_of_zeros(self, make_returns, spec, generator):
        model, sample, t = make_returns(), torch.randn(4, 8, spec.width, generator=generator), torch.tensor(3)
        with torch.no_grad():
            free = model(sample, t)
            assert torch.equal(model(sample, t, torch.zeros_like(sample).bool()), free)
            assert not torch.equal(model(sample, t, torch.ones_like(sample).bool()), free)

    def test_what_happens_late_matters_less_the_steeper_the_discount(self, make_returns, spec, generator):
        sample = torch.randn(1, 24, spec.width, generator=generator).requires_grad_(True)
        shares = []
        for discount in (0.5, 0.9, 0.99):
            (gradient,) = torch.autograd.grad(make_returns(discount=discount)(sample, torch.tensor(0)).sum(), sample)
            shares.append((gradient[0, 16:].norm() / gradient[0, :8].norm()).item())
        assert shares[0] < shares[1] < shares[2]
        assert shares[0] < 0.8 * shares[2]

    def test_every_token_reaches_the_answer(self, make_returns, spec, generator):
        sample = torch.randn(1, 11, spec.width, generator=generator).requires_grad_(True)
        (gradient,) = torch.autograd.grad(make_returns()(sample, torch.tensor(2)).sum(), sample)
        assert (gradient.abs().sum((0, 2)) > 0).all()

    def test_standardize_and_reward_units_are_inverse(self, make_returns, generator):
        model = make_returns()
        model.center.fill_(-40.0)
        model.scale.fill_(2.5)
        returns = 30 * torch.randn(100, generator=generator)
        torch.testing.assert_close(model.in_reward_units(model.standardize(returns)), returns)
        assert model.standardize(torch.tensor([-40.0, -37.5])).tolist() == [0.0, 1.0]

    def test_config_weights_and_scale_survive_saving(self, make_returns, spec, generator, tmp_path):
        model = make_returns(discount=0.97, octaves=2, multipliers=(1, 3))
        model.center.fill_(12.0)
        model.scale.fill_(0.3)
        model.save_pretrained(tmp_path)
        loaded = ReturnModel.from_pretrained(tmp_path)
        assert {k: v for k, v in loaded.config.items() if k[0] != "_"} == {
            "columns": spec.width,
            "discount": 0.97,
            "stride": spec.stride,
            "width": 8,
            "multipliers": [1, 3],
            "kernel_size": 3,
            "octaves": 2,
        }
        sample, t = torch.randn(4, 7, spec.width, generator=generator), torch.tensor(3)
        with torch.no_grad():
            want, got = (m.in_reward_units(m(sample, t)) for m in (model, loaded.eval()))
        assert torch.equal(got, want)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"discount": 0.0},
            {"discount": 1.0},
            {"discount": -0.9},
            {"discount": float("nan")},
            {"stride": 0},
            {"octaves": -1},
            {"width": 12},
            {"width": 0},
            {"multipliers": (1, 0)},
            {"multipliers": ()},
            {"kernel_size": 4},
            {"kernel_size": 0},
            {"kernel_size": -3},
        ],
    )
    def test_refusals(self, make_returns, wrong):
        with pytest.raises(ValueError):
            make_returns(**wrong)

    @pytest.mark.parametrize("size", [2, 4])
    def test_even_kernels_are_refused_with_the_value(self, make_returns, size):
        """They would shift time by half a token."""
        with pytest.raises(ValueError, match=f"kernel_size={size} must be odd"):
            make_returns(kernel_size=size)

    def test_no_columns_are_refused(self):
        with pytest.raises(ValueError, match="columns=0"):
            ReturnModel(0)


@pytest.fixture(scope="module")
def parts(rewarded, spec) -> tuple[Windows, Windows, Normalizer]:
    """Windows to train on, windows of episodes that were held out, and the normalizer of the first."""
    kept, held = rewarded.split(0.25)
    windows = (Windows(e, spec, horizon=HORIZON, discount=DISCOUNT) for e in (kept, held))
    return *windows, Normalizer.fit(kept, spec)


@pytest.fixture(scope="module")
def trained(parts, make_returns) -> ReturnModel:
    windows, _, normalizer = parts
    model = make_returns(width=16).train()
    model.fit_scale(windows)
    config = TrainConfig(steps=300, batch_size=64, learning_rate=3e-3, warmup=20, ema_decay=0.9)
    objective = predicting_returns(windows, normalizer, LEVELS, config, standardize=model.standardize)
    state = TrainState.begin(model, config)
    list(train(state, objective, config, accelerator=Accelerator(cpu=True)))
    return state.ema


@pytest.fixture(scope="module")
def rows(trained, parts) -> list[Calibration]:
    _, held, normalizer = parts
    return calibrate(trained, held, normalizer, LEVELS, samples=1024)


class TestWhatItLearns:
    def test_it_explains_the_returns_of_held_out_episodes(self, rows):
        assert rows[0].timestep is None
        assert rows[0].r2 > 0.9
        assert np.corrcoef(rows[0].predicted, rows[0].true)[0, 1] > 0.95

    def test_noise_hides_them_more_and_more(self, rows):
        assert [row.timestep for row in rows] == [None, *range(8)]
        explained = np.array([row.r2 for row in rows])
        assert explained[-1] < explained[0] - 0.03
        assert (np.diff(explained) < 0.02).all()

    def test_what_is_pinned_is_read_through_all_noise(self, trained, parts, generator):
        """At the highest level the start says most of it, and all observations more."""
        _, held, normalizer = parts
        first, length = held.draw(1024, generator)
        clean, true = normalizer.normalize(held.window(first, length)), held.returns(first, length)
        pins = torch.zeros(3, *clean.shape, dtype=torch.bool)
        pins[1, :, 0, held.spec.observations] = True
        pins[2, :, :, held.spec.observations] = True
        errors = []
        for pinned in pins:
            noisy, t, _ = noised(clean, pinned, LEVELS, generator, torch.full((1024,), 7))
            with torch.no_grad():
                said = trained.in_reward_units(trained(noisy, t, pinned))
            errors.append(((said - true).square().mean() / true.var()).item())
        assert errors[0] > 1
        assert errors[1] < 0.3
        assert errors[2] < 0.9 * errors[1]

    def test_it_is_better_for_knowing_what_is_pinned(self, trained, parts, generator):
        """The same noisy windows with clean starts and ends, once told which entries those are."""
        _, held, normalizer = parts
        first, length = held.draw(1024, generator)
        clean, true = normalizer.normalize(held.window(first, length)), held.returns(first, length)
        pinned, t = draw_pins(held.spec, length, HORIZON, generator), torch.full((1024,), 7)
        noisy = noised(clean, pinned, LEVELS, generator, t)[0]
        with torch.no_grad():
            told, untold = (trained.in_reward_units(trained(noisy, t, p)) for p in (pinned, None))
        assert (told - true).square().mean() < 0.95 * (untold - true).square().mean()

    def test_its_gradient_raises_the_true_return(self, trained, parts, generator):
        """The reward is the velocity along x, and that is where the gradient points."""
        _, held, normalizer = parts
        clean = normalizer.normalize(held.window(*held.draw(256, generator))).requires_grad_(True)
        said = trained(clean, torch.zeros(256).long())
        (gradient,) = torch.autograd.grad(said.sum(), clean)
        along = gradient.mean((0, 1))
        assert along.argmax().item() == held.spec.columns("vx")[0]
        assert along[held.spec.columns("vx")[0]] > 3 * along[held.spec.columns("vy")[0]].abs()


class TestCalibration:
    def test_r2_is_the_explained_share_of_the_variance(self, rows):
        for row in rows:
            assert row.predicted.shape == row.true.shape == (1024,)
            errors, spread = (row.predicted - row.true).numpy(), row.true.numpy()
            assert row.r2 == pytest.approx(1 - (errors**2).mean() / spread.var(), rel=1e-4)
        assert all(torch.equal(row.true, rows[0].true) for row in rows)

    def test_who_says_the_mean_explains_nothing(self, parts, make_returns):
        windows, held, normalizer = parts
        model = make_returns()
        for part in model.head[-1].parameters():
            part.data.zero_()
        model.fit_scale(windows)
        for row in calibrate(model, held, normalizer, LEVELS, samples=512):
            assert (row.predicted == model.center).all()
            off = (row.true.mean() - model.center) ** 2 / row.true.var(correction=0)
            assert row.r2 == pytest.approx(-off.item(), abs=1e-4)

    def test_a_seed_is_a_calibration(self, trained, parts):
        _, held, normalizer = parts
        a, b, other = (calibrate(trained, held, normalizer, LEVELS, samples=64, seed=s) for s in (1, 1, 2))
        assert [r.r2 for r in a] == [r.r2 for r in b] != [r.r2 for r in other]

    def test_scale_is_the_datas(self, parts, make_returns, generator):
        windows, _, _ = parts
        model = make_returns()
        model.fit_scale(windows)
        got = model.standardize(windows.returns(*windows.draw(20_000, generator)))
        assert got.mean().item() == pytest.approx(0, abs=0.05)
        assert got.std().item() == pytest.approx(1, abs=0.05)

    def test_returns_that_are_all_alike_have_a_scale_too(self, parts, make_returns, rewarded, spec):
        still = type(rewarded)(
            rewarded.observations, rewarded.actions, rewarded.offsets, np.zeros_like(rewarded.rewards)
        )
        model = make_returns()
        model.fit_scale(Windows(still, spec, horizon=HORIZON, discount=DISCOUNT))
        assert model.standardize(torch.zeros(2)).tolist() == [0, 0]
