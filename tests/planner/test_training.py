from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from diffplan.planner.normalizer import Normalizer
from diffplan.planner.objectives import denoising, predicting_returns
from diffplan.planner.schedulers import make_scheduler
from diffplan.planner.training import TrainConfig, TrainState, train, update_seed
from diffplan.planner.unet import TemporalUNet
from diffplan.planner.windows import Windows

CONFIG = TrainConfig(steps=6, batch_size=4, warmup=3)


def network(seed: int = 0, width: int = 8) -> TemporalUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TemporalUNet(columns=7, width=width, multipliers=(1, 2), blocks=1, kernel_size=3)


@pytest.fixture
def begin(episodes, spec):
    """A training run and its state; the state can be given to go on from."""
    windows, normalizer = Windows(episodes, spec, horizon=8), Normalizer.fit(episodes, spec)
    levels, accelerator = make_scheduler(train_steps=8).alphas_cumprod, Accelerator(cpu=True)

    def make(config: TrainConfig, state: TrainState | None = None):
        state = state or TrainState.begin(network(), config)
        return state, train(state, denoising(windows, normalizer, levels, config), config, accelerator=accelerator)

    return make


def equal(a: TrainState, b: TrainState) -> bool:
    x, y = a.tensors(), b.tensors()
    return a.step == b.step and x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


class TestConfig:
    @pytest.mark.parametrize(
        "wrong",
        [
            {},
            {"steps": 0},
            {"steps": -1},
            {"minutes": 0},
            {"minutes": math.inf},
            {"minutes": math.nan},
            {"steps": 1, "batch_size": 0},
            {"steps": 1, "learning_rate": 0},
            {"steps": 1, "clip_norm": -1},
            {"steps": 1, "prediction": "score"},
        ],
    )
    def test_refusals(self, wrong):
        with pytest.raises(ValueError):
            TrainConfig(**wrong)

    @pytest.mark.parametrize(
        ("bounds", "step", "seconds", "fraction"),
        [
            ({"steps": 200}, 50, 1e9, 0.25),
            ({"minutes": 2}, 10**9, 30, 0.25),
            ({"steps": 200, "minutes": 2}, 50, 90, 0.75),
            ({"steps": 200, "minutes": 2}, 180, 90, 0.9),
            ({"steps": 200}, 300, 0, 1.0),
            ({"minutes": 1}, 0, 99, 1.0),
        ],
    )
    def test_fraction_is_that_of_the_nearer_bound(self, bounds, step, seconds, fraction):
        assert TrainConfig(**bounds).fraction(step, seconds) == pytest.approx(fraction)

    def test_rate_is_warm_up_times_cosine(self):
        config = TrainConfig(steps=1000, learning_rate=0.01, warmup=10)
        assert config.rate_at(0, 0.0) == pytest.approx(0.001)
        assert config.rate_at(4, 0.0) == pytest.approx(0.005)
        assert config.rate_at(9, 0.0) == config.rate_at(99, 0.0) == pytest.approx(0.01)
        assert config.rate_at(500, 0.5) == pytest.approx(0.005)
        assert config.rate_at(500, 1 / 3) == pytest.approx(0.0075)
        assert config.rate_at(999, 1.0) == pytest.approx(0, abs=1e-12)

    def test_no_warm_up_begins_at_the_peak(self):
        assert TrainConfig(steps=10, warmup=0).rate_at(0, 0.0) == pytest.approx(1e-3)


class TestRuns:
    def test_updates_are_numbered_and_end_at_the_bound(self, begin):
        state, updates = begin(CONFIG)
        seen = list(updates)
        assert [u.step for u in seen] == [1, 2, 3, 4, 5, 6]
        assert [u.fraction for u in seen] == pytest.approx([i / 6 for i in range(1, 7)])
        assert [u.learning_rate for u in seen] == [CONFIG.rate_at(i, i / 6) for i in range(6)]
        assert state.step == 6
        assert list(begin(CONFIG, state)[1]) == []

    @pytest.mark.parametrize("prediction", ["x0", "eps", "v"])
    def test_the_same_seed_is_the_same_run(self, begin, prediction):
        runs = []
        for seed in (1, 1, 2):
            state, updates = begin(replace(CONFIG, steps=2, seed=seed, prediction=prediction))
            list(updates)
            runs.append(state)
        assert equal(runs[0], runs[1])
        assert not equal(runs[0], runs[2])

    def test_killed_and_resumed_equals_uninterrupted(self, begin, tmp_path):
        whole, updates = begin(CONFIG)
        list(updates)
        killed, updates = begin(CONFIG)
        for update in updates:
            if update.step == 3:
                killed.save(tmp_path / "state")
                break
        resumed = TrainState.begin(network(seed=1), CONFIG)
        resumed.load(tmp_path / "state")
        assert resumed.step == 3
        assert resumed.seconds == killed.seconds
        list(begin(CONFIG, resumed)[1])
        assert equal(whole, resumed)

    def test_loss_falls(self, begin):
        _, updates = begin(TrainConfig(steps=150, batch_size=16, warmup=5, learning_rate=5e-3))
        losses = [float(u.info["loss"]) for u in updates]
        assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:5])

    def test_averaged_weights_closed_form(self, begin):
        """e <- d e + (1 - d) w with d = min(decay, (1 + n) / (10 + n)) after update n; e = w at first."""
        config = replace(CONFIG, ema_decay=0.15)
        state, updates = begin(config)
        expected = [p.detach().double().clone() for p in state.model.parameters()]
        for n, _ in enumerate(updates):
            decay = min(0.15, (1 + n) / (10 + n))
            expected = [
                decay * e + (1 - decay) * p.detach().double()
                for e, p in zip(expected, state.model.parameters(), strict=True)
            ]
        for got, want in zip(state.ema.parameters(), expected, strict=True):
            torch.testing.assert_close(got.double(), want, atol=1e-6, rtol=0)
            assert not got.requires_grad

    def test_any_model_and_objective_resume_alike(self, rewarded, spec, make_returns, tmp_path):
        """A return model is trained by the same loop, and killed and resumed it is the same too."""
        windows = Windows(rewarded, spec, horizon=8, discount=0.9)
        objective = predicting_returns(
            windows,
            Normalizer.fit(rewarded, spec),
            make_scheduler(train_steps=8).alphas_cumprod,
            CONFIG,
            standardize=make_returns().standardize,
        )
        states = [TrainState.begin(make_returns().train(), CONFIG) for _ in range(3)]
        list(train(states[0], objective, CONFIG, accelerator=Accelerator(cpu=True)))
        killed = train(states[1], objective, CONFIG, accelerator=Accelerator(cpu=True))
        list(itertools.islice(killed, 4))
        states[1].save(tmp_path / "state")
        states[2].load(tmp_path / "state")
        list(train(states[2], objective, CONFIG, accelerator=Accelerator(cpu=True)))
        assert equal(states[0], states[2])
        assert not equal(states[0], states[1])

    def test_a_minute_bound_ends_the_run(self, begin):
        state, updates = begin(TrainConfig(minutes=0.3 / 60, batch_size=4))
        last = list(updates)[-1]
        assert last.fraction == 1
        assert 0.3 <= state.seconds < 3


def rewrite(path: Path, change: Callable) -> None:
    """Change tensors of a state file by name; None leaves one out."""
    changed = {k: change(k, v) for k, v in load_file(path).items()}
    meta = {"diffplan": json.dumps({"step": 2, "seconds": 1.0})}
    save_file({k: v for k, v in changed.items() if v is not None}, path, metadata=meta)


class TestStateFiles:
    @pytest.fixture
    def saved(self, begin, tmp_path):
        state, updates = begin(replace(CONFIG, steps=2))
        list(updates)
        state.save(tmp_path / "state")
        return tmp_path / "state"

    def test_saving_leaves_one_file(self, saved):
        assert [p.name for p in saved.parent.iterdir()] == ["state"]

    @pytest.mark.parametrize(
        "damage",
        [
            lambda p: p.unlink(),
            lambda p: p.write_bytes(b""),
            lambda p: p.write_bytes(p.read_bytes()[:100]),
            lambda p: p.write_bytes(p.read_bytes()[:-1]),
            lambda p: p.write_bytes(b"no tensors here" * 100),
            lambda p: save_file({"a": torch.zeros(3)}, p),
            lambda p: save_file(load_file(p), p),
            lambda p: save_file(load_file(p), p, metadata={"diffplan": "{}"}),
            lambda p: save_file(load_file(p), p, metadata={"diffplan": "[]"}),
            lambda p: rewrite(p, lambda k, v: None if k.startswith("ema.") else v),
            lambda p: rewrite(p, lambda k, v: v[..., None] if k.endswith("exp_avg") else v),
            lambda p: TrainState.begin(network(width=16), CONFIG).save(p),
        ],
        ids=[
            "missing",
            "empty",
            "header cut",
            "end cut",
            "not safetensors",
            "foreign tensors",
            "no metadata",
            "no step",
            "odd metadata",
            "no averages",
            "moments of another shape",
            "another network",
        ],
    )
    def test_a_bad_file_is_refused_by_name_and_changes_nothing(self, saved, damage):
        damage(saved)
        state = TrainState.begin(network(seed=1), CONFIG)
        before = copy.deepcopy(state)
        with pytest.raises(ValueError, match=str(saved)):
            state.load(saved)
        assert equal(state, before)


def test_every_update_and_process_has_a_seed_of_its_own():
    seeds = [update_seed(*key) for key in itertools.product(range(3), range(100), range(4))]
    assert len(set(seeds)) == len(seeds)
    assert seeds[0] == update_seed(0, 0, 0)
