"""Distillation against flows whose ends are known: entries that are N(MEAN, DEVIATION^2), and a small teacher's own."""

from __future__ import annotations

import copy

import pytest
import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode

from diffplan.planner.diffusion import regression_target, signal_and_noise
from diffplan.planner.distillation import (
    HIGHEST_SHARE,
    SCALES,
    ddim_step,
    distilling,
    draw_levels,
    flow_end,
    noised_softly,
    student_prediction,
)
from diffplan.planner.normalizer import Normalizer
from diffplan.planner.objectives import denoising
from diffplan.planner.sampling import CleanPredictor, denoise
from diffplan.planner.schedulers import for_one_plan, make_scheduler
from diffplan.planner.training import TrainConfig, TrainState, train
from diffplan.planner.unet import TemporalUNet
from diffplan.planner.windows import Windows

MEAN, DEVIATION, LEVELS, MANY = 0.3, 0.5, 8, 1000
SHAPE = (64, 4, 3)
PREDICTIONS = ["x0", "eps", "v"]
TINY = {"batch_size": 64, "learning_rate": 3e-3, "warmup": 20, "action_weight": 1.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grid_of(levels: int, steps: int) -> list[int]:
    return for_one_plan(make_scheduler(train_steps=levels), "ddim", steps).timesteps.tolist()


@pytest.fixture
def exact(exact_denoiser):
    """The perfect predictor of the known data over so many levels."""

    def make(levels: int, prediction: str = "x0", dtype: torch.dtype = torch.float32) -> CleanPredictor:
        alphas_cumprod = make_scheduler(train_steps=levels).alphas_cumprod.to(dtype)
        return CleanPredictor(exact_denoiser(MEAN, DEVIATION, alphas_cumprod, prediction), alphas_cumprod, prediction)

    return make


def known_end(noisy: torch.Tensor, timestep: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """The flow keeps how many deviations an entry is away from the mean."""
    alpha, sigma = signal_and_noise(alphas_cumprod, timestep)
    return MEAN + DEVIATION * (noisy - alpha * MEAN) / (alpha**2 * DEVIATION**2 + sigma**2).sqrt()


def pins_and_values(shape=SHAPE, dtype=torch.float32):
    values = MEAN + DEVIATION * torch.randn(shape, generator=seeded(1), dtype=dtype)
    return torch.rand(shape, generator=seeded(2)) < 0.3, values


class TestFlow:
    @pytest.mark.parametrize("prediction", PREDICTIONS)
    @pytest.mark.parametrize("start", [MANY - 1, 700, 123, 0])
    def test_of_many_steps_ends_where_it_is_known_to(self, exact, prediction, start):
        predict = exact(MANY, prediction, torch.float64)
        pinned, values = pins_and_values(dtype=torch.float64)
        timestep = torch.full((SHAPE[0],), start)
        noisy = noised_softly(values, pinned, predict.alphas_cumprod, timestep, seeded(3))
        end = flow_end(predict, noisy, timestep, pinned, values, grid=grid_of(MANY, MANY))
        known = torch.where(pinned, values, known_end(noisy, timestep, predict.alphas_cumprod))
        torch.testing.assert_close(end, known, atol=0.01, rtol=0)
        assert torch.equal(end[pinned], values[pinned])

    @pytest.mark.parametrize("steps", [1, 2, 4, 8])
    def test_from_the_highest_level_it_is_what_diffusers_samples_without_noise(self, exact, steps):
        predict = exact(LEVELS)
        pinned, values = pins_and_values()
        scheduler = for_one_plan(make_scheduler(train_steps=LEVELS), "ddim", steps)
        noise = torch.randn(SHAPE, generator=seeded())
        *_, last = denoise(predict, scheduler, pinned, values, generators=[seeded()], eta=0.0)
        begun = torch.where(pinned, values, noise)
        end = flow_end(predict, begun, torch.full(SHAPE[:1], LEVELS - 1), pinned, values, grid=grid_of(LEVELS, steps))
        torch.testing.assert_close(end, last.noisy, atol=1e-5, rtol=0)

    def test_each_row_is_what_it_is_alone(self, exact):
        """Levels on the grid and between its steps, together and one by one."""
        predict, grid = exact(LEVELS), grid_of(LEVELS, 4)
        timestep = torch.arange(LEVELS)
        pinned, values = pins_and_values((LEVELS, 4, 3))
        noisy = noised_softly(values, pinned, predict.alphas_cumprod, timestep, seeded())
        together = flow_end(predict, noisy, timestep, pinned, values, grid=grid)
        for row in range(LEVELS):
            own = slice(row, row + 1)
            lower = [low for low in grid if low < row]
            alone = flow_end(predict, noisy[own], timestep[own], pinned[own], values[own], grid=[row, *lower])
            torch.testing.assert_close(together[own], alone)

    def test_every_point_on_the_way_leads_to_the_same_end(self, exact):
        predict, grid = exact(LEVELS), grid_of(LEVELS, 8)
        pinned, values = pins_and_values()
        x, level = torch.randn(SHAPE, generator=seeded()), torch.full(SHAPE[:1], LEVELS - 1)
        x = torch.where(pinned, values, x)
        end = flow_end(predict, x, level, pinned, values, grid=grid)
        for high, low in zip(grid, grid[1:], strict=False):
            now, onto = (signal_and_noise(predict.alphas_cumprod, torch.full_like(level, at)) for at in (high, low))
            x = torch.where(pinned, values, ddim_step(x, predict(x, level, pinned, values), *now, *onto))
            level = torch.full_like(level, low)
            torch.testing.assert_close(flow_end(predict, x, level, pinned, values, grid=grid), end)


class TestQuestions:
    def test_half_begin_at_the_highest_level_and_every_level_is_asked_for(self):
        drawn = draw_levels(16_000, LEVELS, seeded())
        counts = torch.bincount(drawn, minlength=LEVELS) / len(drawn)
        lower = (1 - HIGHEST_SHARE) / LEVELS
        assert counts[-1].item() == pytest.approx(HIGHEST_SHARE + lower, abs=0.02)
        assert counts[:-1].tolist() == pytest.approx([lower] * (LEVELS - 1), abs=0.01)

    def test_noise_has_a_scale_of_its_own_in_every_row_and_spares_the_pins(self):
        alphas_cumprod = make_scheduler(train_steps=LEVELS).alphas_cumprod
        values = torch.zeros(400, 64, 4)
        pinned = torch.zeros_like(values, dtype=torch.bool)
        pinned[:, 0] = True
        timestep = torch.full((400,), 3)
        noisy = noised_softly(values, pinned, alphas_cumprod, timestep, seeded())
        assert (noisy[:, 0] == 0).all()
        scale = noisy[:, 1:].flatten(1).std(dim=1) / (1 - alphas_cumprod[3]).sqrt()
        low, high = SCALES
        assert low - 0.05 < scale.min() < low + 0.05 and high - 0.05 < scale.max() < high + 0.15
        assert scale.mean().item() == pytest.approx((low + high) / 2, abs=0.03)

    def test_a_student_says_what_its_teacher_says_but_noise(self):
        assert [student_prediction(kind) for kind in ("x0", "eps", "v")] == ["x0", "x0", "v"]


class NoLooking(TorchDispatchMode):
    """Notes every operation; `LOOKS` are those that make a GPU wait for a value, among them masks as indices."""

    LOOKS = frozenset(
        {"aten._local_scalar_dense.default", "aten.nonzero.default", "aten.masked_select.default", "mask"}
    )

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(str(func))
        indexed = str(func).startswith(("aten.index.", "aten.index_put"))  # not index_select, which takes no masks
        if indexed and any(t is not None and t.dtype == torch.bool for t in args[1]):
            self.seen.add("mask")
        return func(*args, **(kwargs or {}))


class TestObjective:
    def ask(self, episodes, spec, teacher, model, *, prediction=None, steps=4, seed=0, **config):
        windows = Windows(episodes, spec, horizon=6)
        settings = TrainConfig(steps=1, **{"batch_size": 64, "prediction": prediction or teacher.prediction} | config)
        normalizer = Normalizer.fit(episodes, spec)
        objective = distilling(teacher, windows, normalizer, settings, grid=grid_of(LEVELS, steps))
        return objective(model, seeded(seed))

    @staticmethod
    def knowing(teacher: CleanPredictor, prediction: str, steps: int = 4):
        """A student that says where the flow ends; what is pinned it reads from its input, which has it clean."""

        def network(noisy, timestep, pinned):
            end = flow_end(teacher, noisy, timestep, pinned, noisy, grid=grid_of(LEVELS, steps))
            alpha, sigma = signal_and_noise(teacher.alphas_cumprod, timestep)
            return regression_target(end, (noisy - alpha * end) / sigma, alpha, sigma, prediction)

        return network

    @pytest.mark.parametrize("said", PREDICTIONS)
    @pytest.mark.parametrize("kind", PREDICTIONS)
    def test_who_knows_the_end_has_no_loss(self, rewarded, spec, exact, kind, said):
        teacher = exact(LEVELS, kind)
        loss, info = self.ask(rewarded, spec, teacher, self.knowing(teacher, said), prediction=said)
        assert loss.item() == pytest.approx(0, abs=1e-6)
        assert info["teacher_gap"].item() == pytest.approx(0, abs=1e-6)

    def test_of_one_step_the_teacher_knows_it_itself_at_every_level(self, rewarded, spec, exact):
        teacher = exact(LEVELS)
        assert self.ask(rewarded, spec, teacher, teacher.denoiser, steps=1)[0].item() == pytest.approx(0, abs=1e-10)
        assert self.ask(rewarded, spec, teacher, teacher.denoiser, steps=4)[0] > 1e-3

    def test_who_is_off_by_a_constant_loses_its_square_and_actions_by_their_weight(self, rewarded, spec, exact):
        teacher = exact(LEVELS)
        knows = self.knowing(teacher, "x0")

        def off(noisy, timestep, pinned):
            return knows(noisy, timestep, pinned) + 0.2

        def off_in_actions(noisy, timestep, pinned):
            said = knows(noisy, timestep, pinned)
            said[..., spec.actions] += 1.0
            return said

        loss, info = self.ask(rewarded, spec, teacher, off)
        assert [loss.item(), info["teacher_gap"].item()] == pytest.approx([0.04, 0.04], rel=1e-4)
        heavy, light = (
            self.ask(rewarded, spec, teacher, off_in_actions, action_weight=weight)[0].item() for weight in (1.0, 0.1)
        )
        assert light == pytest.approx(0.1 * heavy / (1 - 0.9 * heavy), rel=1e-3)  # the share of those entries

    def test_the_teachers_clip_holds_its_ends(self, rewarded, spec, exact):
        """A clipped teacher's ends lie within; a student that says more is told so, for it is not clipped itself."""
        wild = exact(LEVELS)
        tame = CleanPredictor(wild.denoiser, wild.alphas_cumprod, wild.prediction, clip=0.1)
        outside = self.ask(rewarded, spec, tame, lambda x, t, p: torch.full_like(x, 2.0))[1]["teacher_gap"]
        assert 1.9**2 < outside < 2.1**2

    def test_gradients_flow_into_the_student_alone(self, rewarded, spec, network):
        teacher, student = network(), network()
        predict = CleanPredictor(teacher, make_scheduler(train_steps=LEVELS).alphas_cumprod)
        loss, info = self.ask(rewarded, spec, predict, student)
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())
        assert all(p.grad is None for p in teacher.parameters())
        assert not any(v.requires_grad for v in info.values())

    def test_it_never_looks_at_a_value(self, rewarded, spec, network):
        """It could not be recorded as a CUDA graph (see `training`) if it did: the teacher's pass and the student's."""
        teacher = CleanPredictor(network(), make_scheduler(train_steps=LEVELS).alphas_cumprod, "v", clip=1.0)
        with NoLooking() as watched:
            loss, _ = self.ask(rewarded, spec, teacher, network())
            loss.backward()
        assert "aten.randn.generator" in watched.seen and not watched.seen & NoLooking.LOOKS

    def test_a_generator_is_a_batch(self, rewarded, spec, exact):
        teacher = exact(LEVELS)
        a, b, other = (self.ask(rewarded, spec, teacher, teacher.denoiser, seed=s)[0] for s in (1, 1, 2))
        assert a == b != other


@pytest.fixture
def network(spec):
    """A small network, always with the same weights."""

    def make() -> TemporalUNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return TemporalUNet(columns=spec.width, width=16, multipliers=(1, 2), blocks=1, kernel_size=3, octaves=1)

    return make


class TestTrained:
    HORIZON, GRID = 6, grid_of(LEVELS, 8)

    def trained(self, model, objective, config):
        state = TrainState.begin(model, config)
        *_, _ = train(state, objective, config, accelerator=Accelerator(cpu=True))
        return state.ema

    @pytest.mark.parametrize("kind", PREDICTIONS)
    def test_a_students_one_step_is_near_its_teachers_many(self, rewarded, spec, network, kind):
        """From the same noise, under the same pins: nearer by far than the teacher's own one step."""
        windows, normalizer = Windows(rewarded, spec, horizon=self.HORIZON), Normalizer.fit(rewarded, spec)
        alphas_cumprod, said = make_scheduler(train_steps=LEVELS).alphas_cumprod, student_prediction(kind)
        config = TrainConfig(steps=200, prediction=kind, **TINY)
        begun = self.trained(network(), denoising(windows, normalizer, alphas_cumprod, config), config)
        teacher = CleanPredictor(begun, alphas_cumprod, kind, clip=1.0)
        config = TrainConfig(steps=150, prediction=said, **TINY)
        student = copy.deepcopy(begun).requires_grad_(True)
        student = self.trained(student, distilling(teacher, windows, normalizer, config, grid=self.GRID), config)

        clean = normalizer.normalize(windows.sample(256, seeded(5))[0])
        pinned = torch.zeros_like(clean, dtype=torch.bool)
        for token, columns in ((0, spec.observations), (-1, spec.position_columns), (-1, spec.arrived)):
            pinned[:, token, columns] = True
        highest = torch.full((256,), LEVELS - 1)
        noisy = noised_softly(clean, pinned, alphas_cumprod, highest, seeded(6))
        end = flow_end(teacher, noisy, highest, pinned, clean, grid=self.GRID)

        @torch.no_grad()
        def gap(model, prediction):
            one = CleanPredictor(model, alphas_cumprod, prediction, clip=1.0)(noisy, highest, pinned, clean)
            assert torch.equal(one[pinned], clean[pinned])
            return (one - end)[~pinned].square().mean().item()

        assert gap(student, said) < 0.6 * gap(begun, kind)
