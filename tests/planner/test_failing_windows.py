"""Windows of tasks without positions, which end in failure or not at all, and what is known of episodes' ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffplan.planner.episodes import Episodes, concatenate
from diffplan.planner.spec import TrajectorySpec
from diffplan.planner.windows import Windows, check_horizon, endless_tails, returns_to_go

LENGTHS = (9, 3, 14, 5, 1, 8, 12, 2)
FAILED = (True, False, False, True, True, False, True, False)
SPEC = TrajectorySpec(("push",), ("state", "episode"), dt_seconds=0.1)
KINDS = [(1, 4), (1, 8), (2, 3), (2, 5), (3, 3)]


def make(lengths=LENGTHS, failed=FAILED, rewards=None) -> Episodes:
    """Every state has a number of its own and names its episode; no action is zero."""
    ends = np.cumsum([n + 1 for n in lengths])
    numbers = [np.arange(end - n - 1, end) for n, end in zip(lengths, ends, strict=True)]
    return Episodes.from_arrays(
        [np.stack([own, np.full(len(own), i)], 1) for i, own in enumerate(numbers)],
        [1 + own[:-1, None] for own in numbers],
        rewards,
        failed,
    )


def left(episodes: Episodes) -> np.ndarray:
    """How many actions (S,) follow each state."""
    return np.repeat(episodes.offsets[1:] - 1, np.diff(episodes.offsets)) - np.arange(episodes.offsets[-1])


def of_each_state(episodes: Episodes, values) -> np.ndarray:
    """What belongs to episodes (N,), for each state (S,)."""
    return np.repeat(np.asarray(values), np.diff(episodes.offsets))


def slow_window(episodes: Episodes, stride: int, state: int, horizon: int) -> np.ndarray | None:
    """The docstring's picture, token by token; None where no window may begin."""
    number = int(np.searchsorted(episodes.offsets, state, side="right")) - 1
    observations, actions = episodes.episode(number)
    begin = state - int(episodes.offsets[number])
    whole, rows = (len(actions) - begin) // stride, []
    if whole < horizon and not (episodes.terminated[number] and whole):
        return None
    for token in range(horizon):
        over = token >= whole
        at = begin + stride * min(token, whole)
        action = np.zeros(1) if over else actions[at : at + stride].mean(0)
        rows.append(np.concatenate([action, observations[at], [1.0 if over else -1.0]]))
    return np.stack(rows)


def every_window(windows: Windows) -> torch.Tensor:
    return windows.window(windows.starts, windows.room[windows.starts])


@pytest.mark.parametrize(("stride", "horizon"), KINDS)
def test_starts_and_windows_are_what_the_slow_reference_cuts(stride, horizon):
    episodes = make()
    windows = Windows(episodes, replace(SPEC, stride=stride), horizon=horizon)
    wanted = {s: slow_window(episodes, stride, s, horizon) for s in range(len(episodes.observations))}
    wanted = {s: w for s, w in wanted.items() if w is not None}
    assert windows.starts.tolist() == list(wanted)
    np.testing.assert_allclose(every_window(windows), np.stack(list(wanted.values())), rtol=1e-6)


@pytest.mark.parametrize(("stride", "horizon"), KINDS)
def test_draws_are_starts_and_all_that_the_episode_leaves(stride, horizon, generator):
    windows = Windows(make(), replace(SPEC, stride=stride), horizon=horizon)
    first, length = windows.draw(20_000, generator)
    ahead = torch.from_numpy(left(make()))[first] // stride
    assert torch.equal(length, ahead.clamp(max=horizon - 1))
    counts = torch.bincount(first, minlength=int(windows.starts.max()) + 1)
    assert torch.equal(torch.nonzero(counts).squeeze(1), windows.starts)
    share = 1 / len(windows)
    spread = (share * (1 - share) / 20_000) ** 0.5
    assert (counts[windows.starts] / 20_000 - share).abs().max() < 5 * spread


@pytest.mark.parametrize(("stride", "horizon"), KINDS)
def test_what_was_only_cut_off_never_arrives_and_never_shows_the_action_nobody_took(stride, horizon):
    episodes = make()
    paths = every_window(Windows(episodes, replace(SPEC, stride=stride), horizon=horizon))
    cut = paths[~torch.tensor(FAILED)[paths[:, 0, 2].long()]]
    assert len(cut)
    assert (cut[..., SPEC.arrived] == -1).all()
    means = 1 + cut[..., 1] + (stride - 1) / 2  # of `stride` actions, each one more than its state's number
    torch.testing.assert_close(cut[..., 0], means)
    assert (cut[:, 1:, 1] - cut[:, :-1, 1] == stride).all()


@pytest.mark.parametrize(("stride", "horizon"), KINDS)
def test_failure_is_absorbed_from_its_token_on(stride, horizon):
    episodes = make()
    paths = every_window(Windows(episodes, replace(SPEC, stride=stride), horizon=horizon))
    reached = paths[..., SPEC.arrived] == 1
    assert reached.any() and torch.tensor(FAILED)[paths[reached.any(1), 0, 2].long()].all()
    assert torch.equal(reached, reached.cummax(1).values)
    assert (paths[..., 0][reached] == 0).all() and (paths[..., 0][~reached] > 0).all()
    assert not reached[:, 0].any()
    for path, over in zip(paths[reached.any(1)], reached[reached.any(1)], strict=True):
        last = int(episodes.offsets[int(path[0, 2]) + 1]) - 1
        assert (path[over, 1] == path[over, 1][0]).all()
        assert 0 <= last - int(path[over, 1][0]) < stride  # what is left is no whole token


def test_a_failure_beyond_the_window_is_not_shown():
    """Twelve actions, four tokens: from where 4 actions are left none of them is the last, from 3 on it is."""
    windows = Windows(make((12,), (True,)), SPEC, horizon=4)
    assert windows.starts.tolist() == list(range(12))
    arrived = every_window(windows)[..., SPEC.arrived]
    assert (arrived[:9] == -1).all()
    assert arrived[9:].tolist() == [[-1, -1, -1, 1], [-1, -1, 1, 1], [-1, 1, 1, 1]]


@pytest.mark.parametrize("stride", [1, 2])
def test_where_nobody_knows_of_ends_all_are_cut_off(stride):
    spec = replace(SPEC, stride=stride)
    unknown, cut = (Windows(make(failed=f), spec, horizon=4) for f in (None, [False] * len(LENGTHS)))
    assert torch.equal(unknown.starts, cut.starts)
    assert torch.equal(every_window(unknown), every_window(cut))


@pytest.mark.parametrize(("stride", "horizon"), KINDS)
def test_no_window_fits_where_nothing_failed_and_all_are_short(stride, horizon):
    spec, steps = replace(SPEC, stride=stride), stride * horizon
    assert Windows(make((steps,), (False,)), spec, horizon=horizon).starts.tolist() == [0]
    short = make((steps - 1, 2), (False, False))
    with pytest.raises(ValueError, match=f"long enough for a window of {horizon} tokens of {stride} steps"):
        Windows(short, spec, horizon=horizon)
    falls = Windows(make((steps - 1, stride), (False, True)), spec, horizon=horizon)
    assert falls.starts.tolist() == [steps]


def test_a_horizon_that_is_allowed_can_be_trained():
    short = make((7,), (False,))
    check_horizon(short, SPEC, 7)
    assert len(Windows(short, SPEC, horizon=7)) == 1
    with pytest.raises(ValueError, match="use a horizon of at most 7"):
        check_horizon(short, SPEC, 8)
    check_horizon(make((7,), (True,)), SPEC, 8)


class TestReturns:
    DISCOUNT = 0.9
    REWARD = 2.0

    def earning(self, lengths=LENGTHS, failed=FAILED) -> Episodes:
        return make(lengths, failed, [np.full(n, self.REWARD) for n in lengths])

    def test_tails_are_nothing_after_failure_and_endless_after_a_cut(self):
        endless = self.REWARD / (1 - self.DISCOUNT)
        got = endless_tails(self.earning(), self.DISCOUNT)
        np.testing.assert_allclose(got, [0 if f else endless for f in FAILED])
        assert (endless_tails(self.earning(failed=None), self.DISCOUNT) == 0).all()
        assert (endless_tails(make(), self.DISCOUNT) == 0).all()

    @pytest.mark.parametrize("steps", [1, 4, 100, 1000])
    def test_tails_are_the_mean_of_the_last_rewards(self, steps):
        rewards = [np.random.default_rng(0).normal(size=n) for n in (250, 30)]
        episodes = make((250, 30), (False, False), rewards)
        want = [r[-steps:].mean() / 0.01 for r in rewards]
        np.testing.assert_allclose(endless_tails(episodes, 0.99, steps=steps), want, rtol=1e-4)
        if steps == 100:
            np.testing.assert_allclose(endless_tails(episodes, 0.99), want, rtol=1e-4)

    def test_of_a_constant_reward_to_go_is_endless_or_geometric(self):
        episodes = self.earning()
        got = returns_to_go(episodes, self.DISCOUNT, tails=endless_tails(episodes, self.DISCOUNT))
        endless = self.REWARD / (1 - self.DISCOUNT)
        geometric = endless * (1 - self.DISCOUNT ** left(episodes))
        np.testing.assert_allclose(got, np.where(of_each_state(episodes, FAILED), geometric, endless))

    def test_a_tail_counts_as_much_as_it_is_near(self):
        rng = np.random.default_rng(1)
        episodes = make(rewards=[rng.normal(size=n) for n in LENGTHS])
        before, tails = episodes.rewards.copy(), rng.normal(size=len(LENGTHS))
        gain = returns_to_go(episodes, 0.8, tails=tails) - returns_to_go(episodes, 0.8)
        np.testing.assert_allclose(gain, 0.8 ** left(episodes) * of_each_state(episodes, tails), atol=1e-12)
        np.testing.assert_array_equal(episodes.rewards, before)

    @pytest.mark.parametrize("stride", [1, 2])
    def test_windows_earn_what_their_episode_will(self, stride):
        episodes = self.earning()
        windows = Windows(episodes, replace(SPEC, stride=stride), horizon=4, discount=self.DISCOUNT)
        endless = self.REWARD / (1 - self.DISCOUNT)
        geometric = endless * (1 - self.DISCOUNT ** left(episodes))
        want = np.where(of_each_state(episodes, FAILED), geometric, endless)[windows.starts]
        for length in (torch.ones_like(windows.starts), windows.room[windows.starts]):
            got = windows.returns(windows.starts, length)
            assert got.dtype == torch.float32
            np.testing.assert_allclose(got, want, rtol=1e-6)

    def test_failing_sooner_is_worth_less(self):
        windows = Windows(self.earning((30, 20), (True, True)), SPEC, horizon=4, discount=self.DISCOUNT)
        first = torch.tensor([0, 31])
        assert windows.returns(first, windows.room[first]).diff().item() < 0


class TestTerminated:
    def test_it_is_kept_as_truth_values(self):
        made = make()
        assert made.terminated.dtype == bool and made.terminated.tolist() == list(FAILED)
        assert make(failed=np.array(FAILED, dtype=np.int8)).terminated.dtype == bool
        assert make(failed=None).terminated is None

    @pytest.mark.parametrize("wrong", [FAILED[:-1], (*FAILED, True), [[f] for f in FAILED], True, []])
    def test_one_for_each_episode_or_refused(self, wrong):
        with pytest.raises(ValueError, match=r"terminated must have shape \(8,\)"):
            make(failed=wrong)

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
    def test_splits_take_it_along(self, share):
        numbers = []
        for part in make().split(share, seed=3):
            own = [int(part.episode(i)[0][0, 1]) for i in range(len(part))]
            assert part.terminated.tolist() == [FAILED[n] for n in own]
            numbers += own
        assert sorted(numbers) == list(range(len(LENGTHS)))
        assert [part.terminated for part in make(failed=None).split(share)] == [None, None]

    def test_concatenated_it_follows_its_episodes(self):
        a, b = make(), make((4, 2), (False, True))
        assert concatenate([a, b]).terminated.tolist() == [*FAILED, False, True]
        assert concatenate([b, a]).terminated.tolist() == [False, True, *FAILED]
        again = concatenate(a.split(0.4))
        assert sorted(again.terminated.tolist()) == sorted(FAILED)

    @pytest.mark.parametrize("known", [(True, False), (False, True), (False, False)])
    def test_where_one_part_does_not_know_nobody_does(self, known):
        assert concatenate([make(failed=FAILED if k else None) for k in known]).terminated is None

    def test_the_fingerprint_depends_on_each(self):
        flips = [tuple(f != (i == j) for j, f in enumerate(FAILED)) for i in range(len(FAILED))]
        prints = [make(failed=f).fingerprint() for f in (FAILED, None, *flips)]
        assert len(set(prints)) == len(prints)
        assert make().fingerprint() == prints[0]
