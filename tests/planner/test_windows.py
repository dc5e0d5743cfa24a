from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffplan.planner import windows as module
from diffplan.planner.episodes import Episodes
from diffplan.planner.spec import TrajectorySpec
from diffplan.planner.windows import (
    Windows,
    arrival,
    check_horizon,
    consistency,
    returns_to_go,
    worst_before_arrival,
)


def slow_window(episodes: Episodes, spec: TrajectorySpec, state: int, length: int, horizon: int) -> np.ndarray:
    """The docstring's picture, token by token."""
    number = int(np.searchsorted(episodes.offsets, state, side="right")) - 1
    observations, actions = episodes.episode(number)
    begin, rows = state - int(episodes.offsets[number]), []
    for token in range(horizon):
        at = begin + spec.stride * min(token, length)
        observation = observations[at].copy()
        if token > length:
            observation[[spec.observation_names.index(n) for n in spec.velocity + spec.rates]] = 0.0
        acted = begin + spec.stride * min(token, length - 1)
        action = actions[acted : acted + spec.stride].mean(0)
        if token >= length:
            action[[n not in spec.held for n in spec.action_names]] = 0.0
        rows.append(np.concatenate([action, observation, [1.0 if token >= length else -1.0]]))
    return np.stack(rows)


@pytest.mark.parametrize("more", [{}, {"velocity": (), "rates": ("vy",)}, {"held": ("fy",)}])
@pytest.mark.parametrize("stride", [1, 2, 5])
def test_windows_are_what_the_slow_reference_cuts(episodes, spec, stride, more, generator):
    spec = replace(spec, stride=stride, **more)
    windows = Windows(episodes, spec, horizon=8)
    rng = np.random.default_rng(0)
    for _ in range(200):
        state = int(windows.starts[rng.integers(len(windows))])
        length = int(rng.integers(1, int(windows.room[state]) + 1))
        got = windows.window(torch.tensor([state]), torch.tensor([length]))[0].numpy()
        np.testing.assert_allclose(got, slow_window(episodes, spec, state, length, 8), atol=1e-6)


@pytest.mark.parametrize("stride", [1, 3])
def test_windows_never_cross_an_episode(spec, stride, generator):
    """Every state of an episode holds the episode's number, so a window must hold one number."""
    lengths = (1, 4, 3, 11, 2, 6)
    numbered = Episodes.from_arrays(
        [np.full((n + 1, 4), i) for i, n in enumerate(lengths)],
        [np.full((n, 2), i) for i, n in enumerate(lengths)],
    )
    windows = Windows(numbered, replace(spec, stride=stride), horizon=5)
    path, length = windows.sample(5000, generator)
    numbers = path[..., 2]
    assert (numbers == numbers[:, :1]).all()
    before = torch.arange(5) < length[:, None]
    torch.testing.assert_close(path[..., 0][before], numbers[before])
    assert set(numbers[:, 0].int().tolist()) == {i for i, n in enumerate(lengths) if n >= stride}


def test_lengths_are_half_log_uniform_half_uniform_and_starts_uniform(spec, generator):
    steps, horizon, batch = 40, 8, 40_000
    one = Episodes.from_arrays([np.zeros((steps + 1, 4))], [np.zeros((steps, 2))])
    windows = Windows(one, replace(spec, stride=1), horizon=horizon)
    _, length = windows.sample(batch, generator)
    expected = np.zeros(horizon)
    for start in range(steps):
        room = min(steps - start, horizon - 1)
        k = np.arange(1, room + 1)
        expected[k] += (0.5 * np.log((k + 1) / k) / np.log(room + 1) + 0.5 / room) / steps
    got = np.bincount(length.numpy(), minlength=horizon) / batch
    assert expected.sum() == pytest.approx(1)
    np.testing.assert_allclose(got, expected, atol=4 * 0.5 / batch**0.5)


def test_lengths_stay_within_the_episode_at_the_largest_random_number(episodes, spec, monkeypatch):
    """torch.rand reaches 1 - 2^-53, where exp(u log(n + 1)) can round to n + 1."""
    windows = Windows(episodes, replace(spec, stride=1), horizon=32)
    pick = (torch.arange(len(windows), dtype=torch.float64) + 0.5) / len(windows)
    for coin in (0.0, 0.9):
        drawn = torch.stack([pick, torch.full_like(pick, 1 - 2**-53), torch.full_like(pick, coin)])
        monkeypatch.setattr(module.torch, "rand", lambda *_, drawn=drawn, **__: drawn)
        _, length = windows.sample(len(windows), torch.Generator())
        assert (length <= windows.room[windows.starts]).all()


def test_the_same_generator_draws_the_same_windows(episodes, spec):
    windows = Windows(episodes, spec, horizon=8)
    a, b = (windows.sample(16, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])


def test_sample_is_draw_and_window(episodes, spec):
    windows = Windows(episodes, spec, horizon=8)
    path, length = windows.sample(16, torch.Generator().manual_seed(3))
    first, same = windows.draw(16, torch.Generator().manual_seed(3))
    assert torch.equal(length, same)
    assert torch.equal(path, windows.window(first, length))


class TestReturns:
    DISCOUNT = 0.93

    @pytest.fixture
    def earning(self, episodes) -> Episodes:
        """The usual motions, with rewards of their own."""
        rng = np.random.default_rng(3)
        parts = [episodes.episode(i) for i in range(len(episodes))]
        rewards = [rng.normal(1, 2, n) for n in episodes.lengths]
        return Episodes.from_arrays([o for o, _ in parts], [a for _, a in parts], rewards)

    def every_window(self, windows: Windows) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = [(s, n) for s in windows.starts.tolist() for n in range(1, int(windows.room[s]) + 1)]
        first, length = torch.tensor(pairs).unbind(1)
        return first, length

    def slow_to_go(self, episodes: Episodes, state: int, steps: int | None = None) -> float:
        """Sum of discounted rewards of so many steps from a state, or to the episode's end."""
        end = int(episodes.offsets[np.searchsorted(episodes.offsets, state, side="right")]) - 1
        last = end if steps is None else state + steps
        assert last <= end
        return sum(self.DISCOUNT**i * float(r) for i, r in enumerate(episodes.rewards[state:last]))

    def test_to_go_is_the_sum_to_the_episodes_end(self, earning):
        got = returns_to_go(earning, self.DISCOUNT)
        want = [self.slow_to_go(earning, s) for s in range(len(got))]
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
        assert (got[earning.offsets[1:] - 1] == 0).all()

    @pytest.mark.parametrize("stride", [1, 2, 3])
    def test_of_a_window_its_own_rewards_and_the_last_of_them_for_ever(self, earning, spec, stride):
        windows = Windows(earning, replace(spec, stride=stride), horizon=5, discount=self.DISCOUNT)
        first, length = self.every_window(windows)
        want = []
        for state, tokens in zip(first.tolist(), length.tolist(), strict=True):
            steps = tokens * stride
            tail = self.DISCOUNT**steps * float(earning.rewards[state + steps - 1]) / (1 - self.DISCOUNT)
            want.append(self.slow_to_go(earning, state, steps) + tail)
        got = windows.returns(first, length)
        assert got.dtype == torch.float32
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)

    def test_without_a_position_the_return_to_go_whatever_the_length(self, earning, spec):
        windows = Windows(earning, replace(spec, position=(), velocity=()), horizon=5, discount=self.DISCOUNT)
        first, length = self.every_window(windows)
        want = [self.slow_to_go(earning, s) for s in first.tolist()]
        np.testing.assert_allclose(windows.returns(first, length), want, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("discount", [0.5, 0.9, 0.99, 0.999])
    def test_a_reward_of_1_for_ever_is_worth_1_over_1_minus_the_discount(self, episodes, spec, discount):
        parts = [episodes.episode(i) for i in range(len(episodes))]
        ones = [np.ones(n) for n in episodes.lengths]
        made = Episodes.from_arrays([o for o, _ in parts], [a for _, a in parts], ones)
        windows = Windows(made, spec, horizon=8, discount=discount)
        got = windows.returns(*self.every_window(windows))
        torch.testing.assert_close(got, torch.full_like(got, 1 / (1 - discount)))

    def test_a_discount_changes_no_window(self, earning, spec):
        plain, paid = (Windows(earning, spec, horizon=8, discount=d) for d in (None, 0.9))
        a, b = (w.sample(50, torch.Generator().manual_seed(1)) for w in (plain, paid))
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    def test_windows_without_a_discount_have_no_returns(self, earning, spec, generator):
        windows = Windows(earning, spec, horizon=8)
        with pytest.raises(ValueError, match="without a discount"):
            windows.returns(*windows.draw(4, generator))

    def test_episodes_without_rewards_have_no_returns(self, episodes, spec):
        with pytest.raises(ValueError, match="returns need rewards"):
            Windows(episodes, spec, horizon=8, discount=0.9)
        with pytest.raises(ValueError, match="returns need rewards"):
            returns_to_go(episodes, 0.9)

    @pytest.mark.parametrize("discount", [0.0, 1.0, -0.5, 1.5, float("nan")])
    def test_a_discount_that_cannot_be_is_refused(self, earning, spec, discount):
        with pytest.raises(ValueError, match="discount"):
            Windows(earning, spec, horizon=8, discount=discount)


class TestFixed:
    """As in Diffuser: windows are of the whole horizon, whatever goals lie on their way."""

    HORIZON = 6

    @pytest.fixture
    def windows(self, episodes, spec) -> Windows:
        return Windows(episodes, spec, horizon=self.HORIZON, fixed=True)

    def test_they_are_as_long_as_the_horizon_and_arrive_at_its_end(self, windows, spec, generator):
        path, length = windows.sample(500, generator)
        assert (length == self.HORIZON - 1).all()
        assert (path[:, :-1, spec.arrived] == -1).all()
        assert (path[:, -1, spec.arrived] == 1).all()
        assert (path[:, -1, spec.actions] == 0).all()

    @pytest.mark.parametrize("stride", [1, 2, 3])
    def test_they_are_what_the_slow_reference_cuts(self, episodes, spec, stride):
        spec = replace(spec, stride=stride)
        windows = Windows(episodes, spec, horizon=self.HORIZON, fixed=True)
        for state in windows.starts.tolist():
            got = windows.window(torch.tensor([state]), windows.room[[state]])[0].numpy()
            want = slow_window(episodes, spec, state, self.HORIZON - 1, self.HORIZON)
            np.testing.assert_allclose(got, want, atol=1e-6)

    @pytest.mark.parametrize("stride", [1, 2, 3])
    def test_they_begin_wherever_one_fits_and_nowhere_else(self, episodes, spec, stride):
        windows = Windows(episodes, replace(spec, stride=stride), horizon=self.HORIZON, fixed=True)
        span = (self.HORIZON - 1) * stride
        fits = [
            first + step
            for first, length in zip(episodes.offsets[:-1], episodes.lengths, strict=True)
            for step in range(length - span + 1)
        ]
        assert windows.starts.tolist() == fits
        first, _ = windows.draw(5000, torch.Generator().manual_seed(0))
        assert set(first.tolist()) == set(fits)

    def test_joined_episodes_let_them_run_on_across_goals(self, spec, generator):
        """A mass goes on at a constant velocity; every fourth step it is said to have reached a goal."""
        steps, cut = 40, 4
        t = np.arange(steps + 1)[:, None]
        states, forces = np.hstack([t, -t, 0 * t + 1, 0 * t - 1]), np.hstack([t, t])[:-1]
        pieces = Episodes.from_arrays(
            [states[i : i + cut + 1] for i in range(0, steps, cut)], [forces[i : i + cut] for i in range(0, steps, cut)]
        )
        spec = replace(spec, stride=1)
        with pytest.raises(ValueError, match=f"window of {self.HORIZON} tokens"):
            Windows(pieces, spec, horizon=self.HORIZON, fixed=True)
        windows = Windows(pieces.joined(), spec, horizon=self.HORIZON, fixed=True)
        assert len(windows) == steps - self.HORIZON + 2
        path, _ = windows.sample(300, generator)
        x = path[..., spec.position_columns][..., 0]
        torch.testing.assert_close(x, x[:, :1] + torch.arange(self.HORIZON))
        torch.testing.assert_close(path[:, :-1, spec.actions][..., 0], x[:, :-1])
        assert (path[..., spec.velocity_columns] == torch.tensor([1.0, -1.0])).all()  # never brought to a stop

    def test_the_others_are_as_before(self, episodes, spec):
        """Without the word lengths vary, and shorter episodes are used."""
        _, length = Windows(episodes, spec, horizon=self.HORIZON).sample(300, torch.Generator().manual_seed(0))
        assert set(length.tolist()) == set(range(1, self.HORIZON))

    def test_a_horizon_that_no_episode_fills_is_refused(self, episodes, spec):
        Windows(episodes, spec, horizon=21, fixed=True)
        with pytest.raises(ValueError, match="no episode is long enough for a window of 22 tokens of 2 steps"):
            Windows(episodes, spec, horizon=22, fixed=True)


def motion(spec: TrajectorySpec, tokens: int = 9) -> torch.Tensor:
    """Constant acceleration, (tokens, D)."""
    t = spec.token_seconds * torch.arange(tokens, dtype=torch.float64)[:, None]
    start, rate, force = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 1.5]]), torch.tensor([[-0.7, 0.3]])
    states = torch.cat([start + rate * t + force * t**2 / 2, rate + force * t], dim=1)
    return spec.join(force.expand(tokens, 2), states, -torch.ones(tokens))


def test_consistency_is_zero_for_constant_acceleration_and_sees_a_jump(spec):
    path = motion(spec)
    assert consistency(spec, path).abs().max() < 1e-12
    path[5:, spec.position_columns] += torch.tensor([3.0, 4.0])
    expected = torch.zeros(8, dtype=torch.float64)
    expected[4] = 5.0
    torch.testing.assert_close(consistency(spec, path), expected, atol=1e-12, rtol=0)


def test_consistency_without_velocities_is_zero(spec):
    assert (consistency(replace(spec, velocity=()), torch.randn(2, 5, 7)) == 0).all()


def test_arrival_is_the_first_positive_token_and_the_last_without_one(spec):
    path = torch.zeros(4, 6, spec.width)
    path[..., spec.arrived] = torch.tensor(
        [[-1, -1, 1, 1, 1, 1], [-1, 1, -1, 1, 1, 1], [-1, -1, -1, -1, -1, -1], [1, 1, 1, 1, 1, 1]]
    )
    before = path.clone()
    assert arrival(spec, path).tolist() == [2, 1, 5, 0]
    assert torch.equal(path, before)


def test_only_errors_before_arrival_count(spec):
    path = -torch.ones(3, 6, spec.width)
    path[0, 2:, spec.arrived] = 1
    path[2, 0:, spec.arrived] = 1
    errors = torch.tensor([[1.0, 2, 3, 4, 5]]).repeat(3, 1)
    assert worst_before_arrival(spec, path, errors).tolist() == [2, 5, 1]


def test_refusals(episodes, spec):
    with pytest.raises(ValueError, match="horizon 1 "):
        Windows(episodes, spec, horizon=1)
    with pytest.raises(ValueError, match="longest episode has 40"):
        Windows(episodes, replace(spec, stride=41), horizon=4)
    narrow = Episodes(episodes.observations[:, :3], episodes.actions, episodes.offsets)
    with pytest.raises(ValueError, match="3 observation and 2 action"):
        Windows(narrow, spec, horizon=4)


@pytest.mark.parametrize(("stride", "most"), [(1, 41), (2, 21), (3, 14), (40, 2)])
def test_check_horizon_allows_up_to_the_longest_episode(episodes, spec, stride, most):
    spec = replace(spec, stride=stride)
    check_horizon(episodes, spec, most)
    with pytest.raises(ValueError, match=f"at most {most} "):
        check_horizon(episodes, spec, most + 1)


class TestGoalsThatAreHeld:
    """Windows that end where the position comes to stay; `along` gives x at each step, all else is zero."""

    @staticmethod
    def episodes(*along: list[float]) -> Episodes:
        states = [np.pad(np.array(x)[:, None], ((0, 0), (0, 3))) for x in along]
        return Episodes.from_arrays(states, [np.zeros((len(x) - 1, 2)) for x in along])

    def test_they_end_at_the_first_token_from_which_it_stays(self, spec, generator):
        way = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.05, 5.0, 5.0, 5.0]  # stays from step 5 on, to 0.1
        windows = Windows(self.episodes(way), replace(spec, stride=2), horizon=6, stays_within=0.1)
        first, length = windows.draw(200, generator)
        assert {(int(f), int(n)) for f, n in zip(first, length, strict=True)} == {
            *((start, -(-(5 - start) // 2)) for start in range(5)),
            *((start, 1) for start in (5, 6, 7)),  # and 8 and 9 have no whole token left
        }
        ends = windows.window(first, length)[:, -1, spec.position_columns[0]]
        assert ((ends - 5.0).abs() <= 0.1).all()

    def test_fixed_windows_do_not_ask(self, spec, generator):
        """They run on whatever the position does, and arrive at their last token."""
        way = [*map(float, range(6)), *[5.0] * 6]
        plain, asked = (
            Windows(self.episodes(way), replace(spec, stride=1), horizon=6, fixed=True, stays_within=within)
            for within in (None, 0.1)
        )
        assert asked.starts.tolist() == plain.starts.tolist()
        assert (asked.draw(50, generator)[1] == 5).all()

    def test_a_place_that_is_only_passed_is_no_goal(self, spec, generator):
        way = [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 3.0]
        windows = Windows(self.episodes(way), replace(spec, stride=1), horizon=10, stays_within=0.1)
        first, length = windows.draw(100, generator)
        assert (windows.window(first, length)[:, -1, spec.position_columns[0]] == 3.0).all()
        passed = Windows(self.episodes(way), replace(spec, stride=1), horizon=10)
        first, length = passed.draw(100, generator)
        assert (passed.window(first, length)[:, -1, spec.position_columns[0]] == 1.0).any()

    def test_too_far_to_be_shown_is_left_out(self, spec, generator):
        way = [*map(float, range(10)), 9.0, 9.0]
        windows = Windows(self.episodes(way), replace(spec, stride=1), horizon=4, stays_within=0.1)
        assert windows.starts.tolist() == [6, 7, 8, 9, 10]

    def test_what_comes_to_no_rest_has_windows_of_any_length_and_what_never_moves_none(self, spec, generator):
        on, still = [*map(float, range(9))], [3.0] * 9
        windows = Windows(self.episodes(on, still), replace(spec, stride=2), horizon=5, stays_within=0.1)
        first, length = windows.draw(500, generator)
        assert first.max() < 8
        assert {int(n) for f, n in zip(first, length, strict=True) if f == 0} == {1, 2, 3, 4}
