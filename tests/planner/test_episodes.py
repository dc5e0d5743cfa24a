from __future__ import annotations

import numpy as np
import pytest

from diffplan.planner.episodes import Episodes, concatenate


def raw() -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(1)
    lengths = (3, 1, 5)
    return (
        [rng.normal(size=(n + 1, 2)).astype(np.float32) for n in lengths],
        [rng.normal(size=(n, 1)).astype(np.float32) for n in lengths],
    )


def gains() -> list[np.ndarray]:
    return [np.arange(n, dtype=np.float32) + 10 * i for i, n in enumerate((3, 1, 5))]


def test_from_arrays_and_episode_are_inverse():
    observations, actions = raw()
    made = Episodes.from_arrays(observations, actions)
    assert len(made) == 3
    assert made.lengths.tolist() == [3, 1, 5]
    assert made.steps == 9
    for i in range(3):
        o, a = made.episode(i)
        np.testing.assert_array_equal(o, observations[i])
        np.testing.assert_array_equal(a, actions[i])


def test_the_last_state_carries_no_action():
    made = Episodes.from_arrays(*raw())
    assert (made.actions[made.offsets[1:] - 1] == 0).all()


def test_concatenate_keeps_every_episode():
    observations, actions = raw()
    parts = [Episodes.from_arrays(observations[i], actions[i]) for i in (slice(0, 1), slice(1, 3))]
    assert concatenate(parts).fingerprint() == Episodes.from_arrays(observations, actions).fingerprint()


class TestConcatenatedRewards:
    def parts(self, *rewarded: bool) -> list[Episodes]:
        observations, actions = raw()
        return [
            Episodes.from_arrays([observations[i]], [actions[i]], [gains()[i]] if known else None)
            for i, known in enumerate(rewarded)
        ]

    def test_they_go_along(self):
        whole = Episodes.from_arrays(*raw(), gains())
        np.testing.assert_array_equal(concatenate(self.parts(True, True, True)).rewards, whole.rewards)

    @pytest.mark.parametrize("known", [(True, False, True), (False, False, False)])
    def test_where_one_part_has_none_nobody_knows_them(self, known):
        assert concatenate(self.parts(*known)).rewards is None

    def test_split_and_put_together_again_nothing_is_lost(self):
        whole = Episodes.from_arrays(*raw(), gains())
        again = concatenate(whole.split(0.4))
        assert sorted(again.rewards.tolist()) == sorted(whole.rewards.tolist())
        assert (again.rewards[again.offsets[1:] - 1] == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["observations", "actions"])
def test_values_that_are_no_numbers_are_named(name, bad):
    arrays = dict(zip(("observations", "actions"), raw(), strict=True))
    arrays[name][2][4, 0] = bad
    with pytest.raises(ValueError, match=f"{name} .* in 1 steps, first in episode 2 at step 4"):
        Episodes.from_arrays(**arrays)


def test_fingerprint_changes_with_any_value():
    observations, actions = raw()
    prints = {Episodes.from_arrays(observations, actions).fingerprint()}
    assert prints == {Episodes.from_arrays(*raw()).fingerprint()}
    for array in (*observations, *actions):
        for index in np.ndindex(array.shape):
            before, array[index] = array[index], np.nextafter(array[index], np.float32(9))
            prints.add(Episodes.from_arrays(observations, actions).fingerprint())
            array[index] = before
    assert len(prints) == 1 + sum(a.size for a in (*observations, *actions))


def test_fingerprint_sees_where_episodes_begin():
    made = Episodes.from_arrays(*raw())
    other = Episodes(made.observations, made.actions, np.array([0, 3, 6, 12]))
    assert other.fingerprint() != made.fingerprint()


@pytest.mark.parametrize(
    ("observations", "actions"),
    [
        ([], []),
        ([np.zeros((3, 2))], []),
        ([np.zeros((3, 2))], [np.zeros((3, 1))]),
        ([np.zeros((1, 2))], [np.zeros((0, 1))]),
        ([np.zeros(3)], [np.zeros((2, 1))]),
        ([np.zeros((3, 2)), np.zeros((3, 4))], [np.zeros((2, 1))] * 2),
        ([np.zeros((3, 2))] * 2, [np.zeros((2, 1)), np.zeros((2, 3))]),
    ],
)
def test_refusals(observations, actions):
    with pytest.raises(ValueError):
        Episodes.from_arrays(observations, actions)


class TestRewards:
    def test_each_belongs_to_its_action_and_the_last_state_has_none(self):
        made = Episodes.from_arrays(*raw(), gains())
        for i, own in enumerate(gains()):
            part = made.rewards[made.offsets[i] : made.offsets[i + 1]]
            assert part.tolist() == [*own.tolist(), 0.0]
        assert made.rewards.dtype == np.float32

    def test_they_may_be_columns(self):
        columns = [g[:, None] for g in gains()]
        np.testing.assert_array_equal(
            Episodes.from_arrays(*raw(), columns).rewards, Episodes.from_arrays(*raw(), gains()).rewards
        )

    def test_none_are_none(self):
        assert Episodes.from_arrays(*raw()).rewards is None

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_values_that_are_no_numbers_are_named(self, bad):
        wrong = gains()
        wrong[2][3] = bad
        with pytest.raises(ValueError, match="rewards .* in 1 steps, first in episode 2 at step 3"):
            Episodes.from_arrays(*raw(), wrong)

    @pytest.mark.parametrize("change", [lambda g: g[:2], lambda g: [*g, g[0]], lambda g: [g[0], g[2], g[1]]])
    def test_another_number_of_them_is_refused(self, change):
        with pytest.raises(ValueError, match="one number for each action"):
            Episodes.from_arrays(*raw(), change(gains()))

    def test_one_that_the_last_state_would_need_is_refused(self):
        with pytest.raises(ValueError, match="one number for each action"):
            Episodes.from_arrays(*raw(), [np.append(g, 0) for g in gains()])

    def test_the_fingerprint_does_not_depend_on_them(self):
        plain = Episodes.from_arrays(*raw()).fingerprint()
        assert Episodes.from_arrays(*raw(), gains()).fingerprint() == plain
        assert Episodes.from_arrays(*raw(), [2 * g for g in gains()]).fingerprint() == plain


class TestSplit:
    COUNT = 20

    def numbered(self, rewards: bool = True) -> Episodes:
        """Every value of an episode is its number; episode n has n % 4 + 1 steps."""
        lengths = [i % 4 + 1 for i in range(self.COUNT)]
        return Episodes.from_arrays(
            [np.full((n + 1, 2), i) for i, n in enumerate(lengths)],
            [np.full((n, 1), i) for i, n in enumerate(lengths)],
            [np.full(n, i) for i, n in enumerate(lengths)] if rewards else None,
        )

    def numbers(self, episodes: Episodes) -> list[int]:
        return [int(episodes.episode(i)[0][0, 0]) for i in range(len(episodes))]

    @pytest.mark.parametrize(("share", "held"), [(0.25, 5), (0.5, 10), (0.9, 18), (0.01, 1)])
    def test_whole_episodes_each_on_one_side_in_order(self, share, held):
        rest, out = self.numbered().split(share)
        assert len(out) == held
        assert sorted(self.numbers(rest) + self.numbers(out)) == list(range(self.COUNT))
        for part in (rest, out):
            assert self.numbers(part) == sorted(self.numbers(part))
            for i, number in enumerate(self.numbers(part)):
                observations, actions = part.episode(i)
                assert observations.shape == (number % 4 + 2, 2)
                assert (observations == number).all()
                assert (actions == number).all()

    def test_rewards_go_along(self):
        for part in self.numbered().split(0.3):
            for i, number in enumerate(self.numbers(part)):
                own = part.rewards[part.offsets[i] : part.offsets[i + 1]]
                assert own.tolist() == [number] * (number % 4 + 1) + [0]
        assert [part.rewards for part in self.numbered(rewards=False).split(0.3)] == [None, None]

    def test_a_seed_is_a_split(self):
        a, b, other = (self.numbers(self.numbered().split(0.3, seed=s)[1]) for s in (1, 1, 2))
        assert a == b != other

    def test_every_episode_is_held_out_now_and_then(self):
        seen = {n for seed in range(60) for n in self.numbers(self.numbered().split(0.2, seed=seed)[1])}
        assert seen == set(range(self.COUNT))

    @pytest.mark.parametrize("share", [0, 1, -0.5, 1.5, 0.99, float("nan")])
    def test_a_share_that_leaves_a_side_empty_is_refused(self, share):
        with pytest.raises(ValueError):
            self.numbered().split(share)

    def test_a_single_episode_is_refused(self):
        with pytest.raises(ValueError, match="of 1 episodes"):
            Episodes.from_arrays([np.zeros((3, 2))], [np.zeros((2, 1))]).split(0.5)


class TestJoined:
    """A recording that was cut wherever a goal was reached is put together again."""

    LENGTHS = (7, 1, 4)

    def whole(self, rewards: bool = True, terminated: list[bool] | None = None) -> Episodes:
        rng = np.random.default_rng(2)
        return Episodes.from_arrays(
            [rng.normal(size=(n + 1, 2)) for n in self.LENGTHS],
            [rng.normal(size=(n, 1)) for n in self.LENGTHS],
            [rng.normal(size=n) for n in self.LENGTHS] if rewards else None,
            terminated,
        )

    def cut(self, whole: Episodes, at: dict[int, list[int]]) -> Episodes:
        """Each piece begins in the state in which the one before it ends; only the last piece may end in failure."""
        observations, actions, rewards, failed = [], [], [], []
        for i, length in enumerate(self.LENGTHS):
            o, a = whole.episode(i)
            edges = [0, *at.get(i, []), length]
            for begin, end in zip(edges[:-1], edges[1:], strict=True):
                observations.append(o[begin : end + 1])
                actions.append(a[begin:end])
                rewards.append(None if whole.rewards is None else whole.rewards[whole.offsets[i] :][begin:end])
                failed.append(whole.terminated is not None and bool(whole.terminated[i]) and end == length)
        return Episodes.from_arrays(
            observations,
            actions,
            None if whole.rewards is None else rewards,
            None if whole.terminated is None else failed,
        )

    @pytest.mark.parametrize("at", [{}, {0: [3]}, {0: [1, 2, 6], 2: [2]}, {0: list(range(1, 7)), 2: [1, 2, 3]}])
    @pytest.mark.parametrize("rewards", [True, False])
    @pytest.mark.parametrize("terminated", [None, [False, False, False], [True, False, True]])
    def test_it_is_the_inverse_of_cutting(self, at, rewards, terminated):
        whole = self.whole(rewards, terminated)
        pieces = self.cut(whole, at)
        again = pieces.joined()
        assert len(pieces) == len(whole) + sum(map(len, at.values()))
        assert again.offsets.tolist() == whole.offsets.tolist()
        assert again.offsets.dtype == whole.offsets.dtype
        for name in ("observations", "actions", "rewards", "terminated"):
            np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
        assert again.fingerprint() == whole.fingerprint() == again.joined().fingerprint()

    def test_a_jump_is_never_joined(self):
        """Not even one of a single column by the least that can be told."""
        pieces = self.cut(self.whole(), {0: [3]})
        moved = pieces.observations.copy()
        moved[4, 1] = np.nextafter(moved[4, 1], np.float32(9))
        apart = Episodes(moved, pieces.actions, pieces.offsets, pieces.rewards)
        assert apart.joined().fingerprint() == apart.fingerprint()
        np.testing.assert_array_equal(apart.joined().rewards, apart.rewards)

    def test_a_failure_is_never_joined_to_what_follows(self):
        """Though the next one begins in the very state: it is where a robot was set up again."""
        pieces = self.cut(self.whole(terminated=[False] * 3), {0: [3, 5]})
        failed = np.array([True, False, False, False, False])
        made = Episodes(pieces.observations, pieces.actions, pieces.offsets, pieces.rewards, failed).joined()
        assert made.lengths.tolist() == [3, 4, 1, 4]
        assert made.terminated.tolist() == [True, False, False, False]

    def test_rewards_stay_with_their_actions(self):
        """Each reward is its action; nobody took an episode's last."""
        plain = self.whole()
        whole = Episodes(plain.observations, plain.actions, plain.offsets, plain.actions[:, 0])
        made = self.cut(whole, {0: [2, 4], 2: [3]}).joined()
        np.testing.assert_array_equal(made.rewards, made.actions[:, 0])
        assert (made.rewards[made.offsets[1:] - 1] == 0).all()
        assert made.steps == sum(self.LENGTHS)

    def test_a_single_episode_is_itself(self):
        alone = Episodes.from_arrays([np.zeros((4, 2))], [np.ones((3, 1))])
        assert alone.joined().fingerprint() == alone.fingerprint()


class TestCuttingAtRests:
    """A thing that is moved from place to place, each motion followed by a rest; x is its place."""

    @staticmethod
    def recording(*rests: int, last: int = 9) -> Episodes:
        """Motions of five steps, each followed by so many steps of rest; the last rest is cut off at the end."""
        x = [0.0]
        for rest in (*rests, last):
            x += [x[-1] + 0.2 * (i + 1) for i in range(5)]
            x += [x[-1]] * rest
        states = np.stack([np.array(x), np.arange(len(x))], axis=1)  # and a clock
        return Episodes.from_arrays([states], [1.0 + np.arange(len(x) - 1)[:, None]], [np.ones(len(x) - 1)], [True])

    def test_each_piece_is_one_motion_and_the_rest_after_it(self):
        whole = self.recording(6, 12)
        pieces = whole.cut_at_rests([0], within=0.01, steps=4)
        assert pieces.lengths.tolist() == [5 + 4, 2 + 5 + 4, 8 + 5 + 4, 5]
        for i in range(len(pieces) - 1):
            states, _ = pieces.episode(i)
            assert np.ptp(states[-5:, 0]) == 0 and np.ptp(states[:, 0]) > 0

    def test_joining_undoes_it(self):
        whole = self.recording(6, 12, 30)
        pieces = whole.cut_at_rests([0], within=0.01, steps=4)
        assert len(pieces) > 3 and pieces.steps == whole.steps
        assert pieces.joined().fingerprint() == whole.fingerprint()
        np.testing.assert_array_equal(pieces.joined().rewards, whole.rewards)
        assert pieces.terminated.tolist() == [False] * (len(pieces) - 1) + [True]

    def test_a_pause_that_is_too_short_is_part_of_the_motion(self):
        assert len(self.recording(3, 3, last=3).cut_at_rests([0], within=0.01, steps=4)) == 1

    def test_what_other_columns_do_does_not_matter(self):
        whole = self.recording(6, 12)
        assert len(whole.cut_at_rests([1], within=0.01, steps=4)) == 1
        assert len(whole.cut_at_rests([0, 1], within=0.01, steps=4)) == 1

    @pytest.mark.parametrize("steps", [4, 200])
    def test_what_never_moves_stays_whole(self, steps):
        still = Episodes.from_arrays([np.zeros((20, 2))], [np.zeros((19, 1))])
        assert still.cut_at_rests([0], within=0.01, steps=steps).fingerprint() == still.fingerprint()
