"""Data that is mapped from files, and looked at in chunks: the same windows, statistics and plant as from memory."""

from __future__ import annotations

import warnings
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from diffplan.planner import episodes as module
from diffplan.planner import plant as plant_module
from diffplan.planner.episodes import Episodes, chunks
from diffplan.planner.inverse import InverseDynamics, predicting_actions
from diffplan.planner.normalizer import KINDS, Normalizer
from diffplan.planner.plant import Plant
from diffplan.planner.spans import Spans
from diffplan.planner.spec import TrajectorySpec
from diffplan.planner.training import TrainConfig
from diffplan.planner.windows import Windows

PLANE = TrajectorySpec(("fx", "fy"), ("x", "y", "vx", "vy"), ("x", "y"), ("vx", "vy"), 0.05, 2)
BLIND = replace(PLANE, position=(), velocity=())


def wandering(lengths=(30, 1, 12, 7, 2, 45, 3), seed=0) -> Episodes:
    """Masses that are pushed about at random; every other one comes to rest before its end, the second never moves."""
    rng = np.random.default_rng(seed)
    observations, actions = [], []
    for number, steps in enumerate(lengths):
        forces = rng.uniform(-1, 1, (steps, 2)) * (number != 1)
        if number % 2 == 0:
            forces[2 * steps // 3 :] = 0.0
        velocity = np.vstack([np.zeros((1, 2)), 0.1 * np.cumsum(forces, axis=0)])
        velocity[1:] *= np.abs(forces).any(axis=1, keepdims=True)
        place = rng.normal(size=2) + 0.05 * np.cumsum(velocity, axis=0)
        observations.append(np.hstack([place, velocity]))
        actions.append(forces)
    rewards = [rng.normal(size=n) for n in lengths]
    return Episodes.from_arrays(observations, actions, rewards, rng.random(len(lengths)) < 0.5)


def mapped(episodes: Episodes, folder) -> Episodes:
    arrays = {}
    for field in fields(Episodes):
        np.save(folder / f"{field.name}.npy", getattr(episodes, field.name))
        arrays[field.name] = np.load(folder / f"{field.name}.npy", mmap_mode="r")
    return Episodes(**arrays)


class TestMapped:
    @pytest.fixture
    def pair(self, tmp_path) -> tuple[Episodes, Episodes]:
        return wandering(), mapped(wandering(), tmp_path)

    @pytest.mark.parametrize("options", [{}, {"fixed": True}, {"discount": 0.9}, {"stays_within": 0.01}])
    @pytest.mark.parametrize("spec", [PLANE, BLIND, replace(PLANE, stride=1)], ids=["plane", "blind", "stride 1"])
    def test_windows_are_the_same_and_nothing_is_copied_or_said(self, pair, spec, options):
        if spec is BLIND and "stays_within" in options:
            pytest.skip("what has no position stays nowhere")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            a, b = (Windows(e, spec, horizon=4, **options) for e in pair)
        for name in ("observations", "actions"):
            assert getattr(b, name).data_ptr() == getattr(pair[1], name).ctypes.data
        drawn = [w.draw(300, torch.Generator().manual_seed(5)) for w in (a, b)]
        assert all(torch.equal(x, y) for x, y in zip(*drawn, strict=True))
        assert torch.equal(a.window(*drawn[0]), b.window(*drawn[0]))
        if "discount" in options:
            assert torch.equal(a.returns(*drawn[0]), b.returns(*drawn[0]))

    def test_all_else_is_the_same(self, pair):
        a, b = pair
        assert a.fingerprint() == b.fingerprint() and repr(a) == repr(b)
        assert a.joined().fingerprint() == b.joined().fingerprint()
        for mine, other in zip(a.split(0.3), b.split(0.3), strict=True):
            assert mine.fingerprint() == other.fingerprint()
        for kind in KINDS:
            mine, other = (Normalizer.fit(e, PLANE, kind).state_dict() for e in pair)
            assert all(torch.equal(v, other[k]) for k, v in mine.items())

    def test_inverse_dynamics_are_learned_alike(self, pair):
        models = [InverseDynamics(4, 2) for _ in pair]
        for model, episodes in zip(models, pair, strict=True):
            model.fit_scale(episodes)
        models[1].load_state_dict(models[0].state_dict() | models[1].state_dict() | dict(models[0].named_parameters()))
        config, cpu = TrainConfig(steps=1, batch_size=50), torch.device("cpu")
        a, b = (
            predicting_actions(episodes, config, cpu)(model, torch.Generator().manual_seed(2))[0]
            for model, episodes in zip(models, pair, strict=True)
        )
        assert torch.equal(a, b)

    def test_files_are_not_written_to(self, pair, tmp_path):
        before = {p: p.read_bytes() for p in tmp_path.iterdir()}
        windows = Windows(pair[1], PLANE, horizon=4)
        windows.sample(10, torch.Generator())[0].zero_()
        with pytest.raises(ValueError, match="read-only"):
            pair[1].observations[0] = 7
        assert before == {p: p.read_bytes() for p in tmp_path.iterdir()}


@pytest.mark.parametrize("spec", [PLANE, BLIND], ids=["plane", "blind"])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_windows_of_some_episodes_are_those_of_a_copy_of_them(spec, share):
    episodes = wandering((30, 1, 12, 7, 2, 45, 3) * 3)
    out = episodes.held_out(share, seed=3)
    assert out.sum() == round(share * len(episodes))
    for copied, only in zip(episodes.split(share, seed=3), (~out, out), strict=True):
        a, b = (
            Windows(copied, spec, horizon=4, discount=0.9),
            Windows(episodes, spec, horizon=4, discount=0.9, only=only),
        )
        assert len(a) == len(b)
        (first, length), (state, tokens) = (w.draw(400, torch.Generator().manual_seed(1)) for w in (a, b))
        assert torch.equal(length, tokens) and torch.equal(a.window(first, length), b.window(state, tokens))
        assert torch.equal(a.returns(first, length), b.returns(state, tokens))
        numbers = np.searchsorted(episodes.offsets, state.numpy(), side="right") - 1
        assert only[numbers].all()


class TestChunks:
    @pytest.fixture(params=[1, 7, 50])
    def small(self, request, monkeypatch) -> int:
        monkeypatch.setattr(module, "CHUNK", request.param)
        return request.param

    @pytest.mark.parametrize("states", [0, 1, 6, 7, 8, 99])
    def test_they_cover_every_state_once(self, small, states):
        every = [i for part in chunks(states) for i in range(states)[part]]
        assert every == list(range(states))
        assert all(part.stop - part.start <= small for part in chunks(states))

    @pytest.mark.parametrize("kind", KINDS)
    def test_statistics_are_those_of_the_whole(self, small, kind):
        episodes = wandering()
        rows = torch.from_numpy(np.hstack([episodes.actions, episodes.observations])).double()
        got = Normalizer.fit(episodes, PLANE, kind)
        if kind == "limits":
            center, scale = (rows.amax(0) + rows.amin(0)) / 2, (rows.amax(0) - rows.amin(0)) / 2
        else:
            center, scale = rows.mean(0), rows.std(0)
        torch.testing.assert_close(got.center[:-1], center.float(), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(got.scale[:-1], scale.float(), rtol=1e-6, atol=1e-9)

    def test_the_fingerprint_is_that_of_the_whole(self, small, monkeypatch):
        chunked = wandering().fingerprint()
        monkeypatch.setattr(module, "CHUNK", 1 << 20)
        assert chunked == wandering().fingerprint()

    def test_the_first_value_that_is_no_number_is_named(self, small):
        episodes = wandering()
        spoilt = episodes.actions.copy()
        spoilt[[40, 60, 61]] = np.nan
        with pytest.raises(ValueError, match="actions .* in 3 steps, first in episode 2 at step 7"):
            replace(episodes, actions=spoilt)

    def test_visited_places_are_those_of_the_whole(self, small, monkeypatch):
        chunked = Plant.fit(wandering(), PLANE).state_dict()
        monkeypatch.setattr(module, "CHUNK", 1 << 20)
        whole = Plant.fit(wandering(), PLANE).state_dict()
        assert all(torch.equal(v, whole[k]) for k, v in chunked.items())


class TestPlantsOfMuchData:
    """Of more transitions than are needed evenly spaced ones are fitted; visited space is that of every state."""

    @pytest.fixture
    def much(self) -> Episodes:
        return wandering(tuple(np.random.default_rng(1).integers(1, 80, 200)))

    def test_the_answer_hardly_changes(self, much, monkeypatch):
        whole = Plant.fit(much, PLANE)
        monkeypatch.setattr(plant_module, "MOST_TRANSITIONS", 700)
        few = Plant.fit(much, PLANE)
        torch.testing.assert_close(few.push, whole.push, rtol=1e-4, atol=1e-6)
        assert not torch.equal(few.top, whole.top)

    def test_every_state_is_on_the_grid(self, much, monkeypatch):
        monkeypatch.setattr(plant_module, "MOST_TRANSITIONS", 700)
        monkeypatch.setattr(plant_module, "SEEN", 1)
        voxel, counts, origin, visited = plant_module._grid(much, PLANE, 0.01)
        cells = np.floor((much.observations[:, :2].astype(float) - origin) / voxel).astype(int)
        assert visited.shape == counts and visited[tuple(cells.T)].all()
        assert visited.sum() == len(np.unique(cells, axis=0))

    @pytest.mark.parametrize("most", [1, 3, 93, 94, 95, 10**6])
    def test_transitions_never_lead_out_of_an_episode(self, most, monkeypatch):
        monkeypatch.setattr(plant_module, "MOST_TRANSITIONS", most)
        episodes = wandering()  # 100 transitions
        now, before, after, actions = plant_module._transitions(episodes, PLANE)
        last = episodes.offsets[1:] - 1
        assert len(now) == min(most, 100) and not np.isin(now, last).any() and (np.diff(now) > 0).all()
        np.testing.assert_array_equal(before, episodes.observations[now, 2:])
        np.testing.assert_array_equal(after, episodes.observations[now + 1, 2:])
        np.testing.assert_array_equal(actions, episodes.actions[now])
        if most >= 100:
            assert set(now) == set(range(len(episodes.observations))) - set(last)


def usable(episodes: Episodes, spec: TrajectorySpec, horizon: int, fixed: bool, within: float | None) -> dict:
    """Tokens that a window lasts from each state that one may begin at; None for any number up to what is left."""
    found = {}
    for number in range(len(episodes)):
        places, _ = episodes.episode(number)
        steps = len(places) - 1
        away = np.linalg.norm(places[:, :2] - places[-1, :2], axis=1) > (within or 0)
        settled = int(np.flatnonzero(away)[-1]) + 1 if away.any() else 0
        for step in range(steps + 1):
            ahead, until = (steps - step) // spec.stride, None
            if spec.position:
                fits = ahead >= (horizon - 1 if fixed else 1)
            else:
                fits = ahead >= horizon or (episodes.terminated[number] and ahead >= (horizon - 1 if fixed else 1))
            if within is not None and not fixed:
                if steps - settled >= spec.stride:
                    until = max(1, -(-(settled - step) // spec.stride))
                fits &= settled > 0 and (until is None or until <= min(ahead, horizon - 1))
            if fits:
                found[int(episodes.offsets[number]) + step] = until
    return found


@pytest.mark.parametrize("horizon", [2, 5, 9])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    ("spec", "fixed", "within"),
    [(PLANE, False, None), (PLANE, True, None), (PLANE, False, 0.01), (BLIND, False, None), (BLIND, True, None)],
)
class TestSpans:
    @pytest.fixture
    def wanted(self, spec, fixed, within, stride, horizon) -> dict:
        return usable(wandering(), replace(spec, stride=stride), horizon, fixed, within)

    @pytest.fixture
    def spans(self, spec, fixed, within, stride, horizon) -> Spans:
        asked = {"horizon": horizon, "fixed": fixed, "stays_within": within}
        return Spans.of(wandering(), replace(spec, stride=stride), device="cpu", **asked)

    def test_every_usable_state_has_one_number(self, spans, wanted):
        """So that uniform numbers are uniform states."""
        states, episodes = spans.at(torch.arange(spans.total))
        assert states.tolist() == list(wanted)
        assert torch.equal(episodes, spans.episode(states))

    def test_windows_end_where_the_position_comes_to_stay(self, spans, wanted):
        states, episodes = spans.at(torch.arange(spans.total))
        lengths = spans.settles(torch.full_like(states, -7), states, episodes)
        assert lengths.tolist() == [-7 if until is None else until for until in wanted.values()]

    def test_tables_have_a_row_for_each_episode(self, spans):
        tables = [t for t in vars(spans).values() if isinstance(t, torch.Tensor)]
        assert len(tables) >= 3 and max(map(len, tables)) == len(wandering()) + 1


def test_draws_are_uniform_over_usable_states():
    episodes, count = wandering(), 60_000
    windows = Windows(episodes, PLANE, horizon=6)
    first, _ = windows.draw(count, torch.Generator().manual_seed(0))
    wanted = list(usable(episodes, PLANE, 6, False, None))
    seen = torch.bincount(first, minlength=len(episodes.observations))
    assert torch.nonzero(seen).squeeze(1).tolist() == wanted == windows.starts.tolist()
    expected = count / len(wanted)
    squares = ((seen[wanted] - expected) ** 2 / expected).sum().item()  # chi-square, of mean n and deviation sqrt(2 n)
    freedom = len(wanted) - 1
    assert abs(squares - freedom) < 4 * (2 * freedom) ** 0.5
