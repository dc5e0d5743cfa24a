"""The planner: one diffusers pipeline that saves, loads, shares and plans.

Shape letters: P problems, K candidates, B = P * K batch, H horizon (tokens), D columns of a token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor

from .batch import Batch, Question, Shape, shape_of
from .conditions import Conditions, apply_actions, from_to, start_at
from .course import as_plan
from .diffusion import Prediction, check_prediction
from .engine import Graph, Precision, Ready, Tensors, quickened
from .guides import Cost, Guide, as_guide
from .inverse import InverseDynamics
from .loading import load_whole, own_weights
from .normalizer import Normalizer
from .options import Sampling
from .plan import Array, Plan, sorted_plans
from .plant import Plant
from .racing import courses, quickest_first
from .returns import ReturnModel
from .roadmap import Roadmap, through
from .sampling import CleanPredictor, Draw, Step, denoise, draw_noise, drawing
from .schedulers import Scheduler, for_one_plan
from .selection import Verdict, judge, order
from .spec import TrajectorySpec
from .steering import Wish
from .stitching import stitched
from .unet import TemporalUNet

SPEED_RESERVE = 0.93  # of a speed limit is planned for: following a plan overshoots a little

Feasible = Callable[[Plan], NDArray[np.bool_]]
"""A caller's own check of candidates, such as against a map: a plan to (K,) true where a candidate may be followed."""


class TrajectoryPlanner(DiffusionPipeline):
    """Plans trajectories by denoising them under conditions (Janner et al. 2022).

    Args:
        denoiser: the network.
        normalizer: environment units to network units.
        scheduler: noise levels that the network was trained on.
        returns: predicts the return of noisy trajectories; None where the run trained none.
        plant: what the data says of the plant and the space around it; None where the task has none.
        inverse: finds the actions between planned states; None where the run learned none.
        spec: the columns, as `TrajectorySpec.to_config` writes them.
        horizon: H.
        task: name of the task it was trained for.
        prediction: what the network says: "x0", "eps" or "v".
        clip: bound on free entries of clean trajectories, normalised; None for none.
        consistency_bound: `windows.consistency` that 99% of the data's windows stay below, in position units.
        sampling: defaults of `Sampling`.
        state_only: plans are of states alone, and their actions those of `inverse`.
    """

    model_cpu_offload_seq = "denoiser"
    _optional_components = ["returns", "plant", "inverse"]  # noqa: RUF012 - diffusers' own way to say so

    def __init__(
        self,
        denoiser: TemporalUNet,
        normalizer: Normalizer,
        scheduler: Scheduler,
        returns: ReturnModel | None = None,
        plant: Plant | None = None,
        inverse: InverseDynamics | None = None,
        spec: dict[str, Any] | None = None,
        horizon: int = 32,
        task: str = "",
        prediction: Prediction = "x0",
        clip: float | None = 1.0,
        consistency_bound: float = 0.0,
        sampling: dict[str, Any] | None = None,
        state_only: bool = False,
    ) -> None:
        super().__init__()
        if spec is None:
            raise ValueError("a planner needs the spec of its columns: spec=TrajectorySpec(...).to_config()")
        check_prediction(prediction)
        if state_only and inverse is None:
            raise ValueError("plans of states alone need inverse dynamics to find their actions: inverse=...")
        self.register_modules(
            denoiser=denoiser,
            normalizer=normalizer,
            scheduler=scheduler,
            returns=returns,
            plant=plant,
            inverse=inverse,
        )
        self.register_to_config(
            spec=spec,
            horizon=horizon,
            task=task,
            prediction=prediction,
            clip=clip,
            consistency_bound=consistency_bound,
            sampling=sampling or {},
            state_only=state_only,
        )
        self.spec, self.horizon, self.task = TrajectorySpec(**spec), horizon, task
        self.sampling = Sampling(**(sampling or {}))
        self._roadmap: Roadmap | None = None
        self.predict = CleanPredictor(denoiser, scheduler.alphas_cumprod, prediction, clip)
        self._ready: dict[Shape, Ready] = {}
        for network in (denoiser, returns, inverse):
            if network is not None:
                network.eval()

    @property
    def device(self) -> torch.device:
        """Where the denoiser is; diffusers' own looks through every module, at each of several looks per plan."""
        return next(self.denoiser.parameters()).device

    def to(self, *args: Any, **kwargs: Any) -> TrajectoryPlanner:
        """On another device, or in another type; what was prepared has to be prepared again."""
        moved = super().to(*args, **kwargs)
        self.predict = replace(self.predict, alphas_cumprod=self.predict.alphas_cumprod.to(self.device))
        self._ready.clear()
        return moved

    # ------------------------------------------------------------------ loading and saving

    @classmethod
    def from_pretrained(cls, path: str | Path, **options: Any) -> TrajectoryPlanner:
        """Load a planner that `save_pretrained` wrote; a folder, or a name on the Hugging Face hub.

        Only safetensors and JSON are read.

        Raises:
            ValueError: a file is missing, damaged or foreign; the message names it.
        """
        load = super().from_pretrained
        loaded = load_whole(Path(path), lambda: load(str(path), use_safetensors=True, **options))
        for part in (loaded.denoiser, loaded.normalizer, loaded.returns, loaded.plant, loaded.inverse):
            if part is not None:
                own_weights(part)
        return loaded

    # ------------------------------------------------------------------ asking

    def problem(self, start: Sequence[float] | Tensor, goal: Sequence[float] | Tensor | None = None) -> Conditions:
        """Conditions of the usual problem: a whole start observation (O,) and, if given, a goal position (P,)."""
        spec, horizon = self.spec, self.horizon
        known = start_at(spec, horizon, start) if goal is None else from_to(spec, horizon, start, goal)
        if self.config.state_only:  # it was trained on states alone, with actions left out
            known |= apply_actions(spec, horizon, torch.zeros(horizon, len(spec.action_names)))
        return known

    def plan(
        self,
        conditions: Conditions,
        *,
        generator: torch.Generator | None = None,
        guide: Guide | Cost | None = None,
        previous: tuple[Plan, float] | None = None,
        feasible: Feasible | None = None,
        tempo: float = 1.0,
        **options: Any,
    ) -> Plan:
        """Plan once.

        Args:
            conditions: what is known, in environment units; see `problem` and `conditions`.
            generator: source of noise; the same seed gives the same plan.
            guide: what to prefer: a `Guide`, or any function of the spec and clean trajectories to costs.
            previous: an earlier plan and the environment steps since it began: a warm start, and a rival.
            feasible: candidates that it refuses rank behind all others.
            tempo: how much faster than planned the plan will be followed: guides see what will be executed.
            **options: fields of `options.Sampling`.
        """
        generators = None if generator is None else [generator]
        return self.plan_many(
            [conditions],
            generators=generators,
            guide=guide,
            previous=previous and [previous],
            feasible=feasible,
            tempo=tempo,
            **options,
        )[0]

    def plan_many(
        self,
        conditions: Sequence[Conditions],
        *,
        generators: Sequence[torch.Generator] | None = None,
        guide: Guide | Cost | None = None,
        previous: Sequence[tuple[Plan, float]] | None = None,
        feasible: Feasible | None = None,
        tempo: float = 1.0,
        past: Sequence[Array] = (),
        **options: Any,
    ) -> list[Plan]:
        """Plan several problems in one batch; with a generator of its own, each problem's plan is what it is alone.

        Args and errors as for `plan`, one conditions, generator and previous plan per problem; `past` has the
        observations (n, O) that led to each problem's start, for guides that ask what was passed already.
        """
        began, sampling = time.perf_counter(), self.sampling.changed(options)
        generators = generators or [torch.Generator().manual_seed(i) for i in range(len(conditions))]
        if not conditions or len(generators) != len(conditions):
            raise ValueError(f"{len(conditions)} problems need as many generators, got {len(generators)}")
        wish = self._wish(guide, tempo, past)
        sampling = sampling.fitting(guided=wish is not None, raced=self.plant is not None)
        batch = Batch(conditions, generators, sampling, wish, previous)
        plans = self._one_leg(batch) if sampling.legs == 1 else stitched(batch, self._one_leg, self.spec, self.device)
        plans = plans if sampling.select != "fastest" else quickest_first(self.plant, plans)
        plans = plans if feasible is None else [plan.preferring(feasible(plan)) for plan in plans]
        limit = None if wish is None else wish.speed_limit
        plans = plans if limit is None else [plan.slowed(SPEED_RESERVE * limit / tempo) for plan in plans]
        seconds = time.perf_counter() - began
        return [replace(plan, seconds=seconds) for plan in plans]

    def stops(
        self, start: Sequence[float] | Tensor | Array, goal: Sequence[float], *, nearer: int = 0
    ) -> list[Sequence[float]]:
        """Positions (P,) to plan to one after another from an observation (O,) to a goal (P,), which is the last.

        More than the goal only where it is farther than a plan reaches and a plant knows the way (see `roadmap`);
        `nearer` ones, by so many halvings, are for where no candidate found a way to those.
        """
        if self.plant is None:
            return [goal]
        if self._roadmap is None or self._roadmap.plant is not self.plant:
            self._roadmap = Roadmap(self.plant, self.horizon * self.spec.token_seconds)
        here = np.asarray(start, dtype=float)[self.spec.position_indices]
        return [stop.tolist() for stop in self._roadmap.stops(here, goal, nearer=nearer)]

    def route(
        self,
        start: Sequence[float] | Tensor,
        stops: Sequence[Sequence[float]],
        *,
        generator: torch.Generator | None = None,
        guide: Guide | Cost | None = None,
        feasible: Feasible | None = None,
        **options: Any,
    ) -> Plan:
        """Plan through several positions in order: each leg begins in the state in which the one before it arrives.

        One that is farther than a plan reaches is planned to in several legs (see `stops`).

        Args:
            start: observation (O,).
            stops: positions (P,), the last of them the goal.
            generator: source of noise.
            guide: what to prefer on every leg.
            feasible: as for `plan`, of every leg.
            **options: fields of `options.Sampling`.
        """
        if not len(stops):
            raise ValueError("a route needs at least a goal")
        known: dict[str, Any] = {"generator": generator, "guide": guide, "feasible": feasible}
        one_leg = (options.get("legs") or self.sampling.legs) == 1

        def leg(here: Array, to: Sequence[float]) -> Plan:
            return self.plan(self.problem(torch.as_tensor(here), to), **known, **options)

        def between(here: Array, to: Sequence[float], nearer: int) -> Sequence[Sequence[float]]:
            return self.stops(here, to, nearer=nearer) if one_leg else [to]

        return through(np.asarray(start, dtype=np.float32), stops, leg=leg, between=between, blocked=self.blocked)

    def nearest(
        self,
        start: Sequence[float] | Tensor,
        goals: Sequence[Sequence[float]],
        *,
        vias: Sequence[Sequence[float]] = (),
        **options: Any,
    ) -> tuple[int, Plan]:
        """Which of several goals is reached soonest, and the route to it as it is driven.

        A way that leads where the data shows none, or that the caller's check refuses, is taken only if all do.

        Args:
            start: observation (O,).
            goals: positions (P,).
            vias: positions (P,) to pass before, in order.
            **options: as for `route`, the same generator's noise for each goal.
        """
        if not len(goals):
            raise ValueError("give at least one goal to choose from")
        generator, check = options.pop("generator", None) or torch.Generator().manual_seed(0), options.get("feasible")
        before, ways = generator.get_state(), []
        for goal in goals:
            generator.set_state(before)
            plan = self.route(start, [*vias, goal], generator=generator, **options)
            way = plan if plan.guides else self.raced(plan)
            refused = self.blocked(plan) or (check is not None and not check(way)[0])
            ways.append((refused, way.steps, way))
        best = min(range(len(ways)), key=lambda i: ways[i][:2])
        return best, ways[best][2]

    def raced(self, plan: Plan) -> Plan:
        """The plan as it is driven: each candidate's fastest course; the plan itself where no plant tells."""
        if self.plant is None:
            return plan
        return as_plan(courses(self.plant, [plan.candidate(k) for k in range(len(plan.trajectories))]))

    def blocked(self, plan: Plan) -> bool:
        """Whether the best candidate leads where the data shows no way; never where no plant tells."""
        return self.plant is not None and courses(self.plant, [plan])[0].blocked

    def film(
        self,
        conditions: Conditions,
        *,
        generator: torch.Generator | None = None,
        guide: Guide | Cost | None = None,
        **options: Any,
    ) -> Iterator[Tensor]:
        """The plan while it is denoised, from noise to plan: `Sampling.steps` + 1 times (K, H, D), in its units."""
        generators, sampling = [generator or torch.Generator().manual_seed(0)], self.sampling.changed(options)
        batch = Batch([conditions], generators, sampling, self._wish(guide, 1.0))
        question = batch.question(self.spec, self.horizon).to(self.device)
        pinned, values = question.pinned, question.values
        before = generators[0].get_state()
        noise = draw_noise(generators, sampling.candidates, values.shape[1:], self.device)
        generators[0].set_state(before)  # so that the film begins in the very noise that the plan begins in
        yield torch.where(pinned, values, self.normalizer.denormalize(sampling.temperature * noise)).cpu()
        for step in self._denoise(question, batch, self.predict):
            yield self.normalizer.denormalize(step.noisy).cpu()

    def score(self, guide: Guide | Cost, plan: Plan, *, tempo: float = 1.0) -> NDArray[np.float64]:
        """How much a guide likes each candidate (K,) of a plan; higher is better."""
        wish = self._wish(guide, tempo)
        if wish is None:
            return np.zeros(len(plan.trajectories))
        return wish.liking_of(plan, self.device)

    # ------------------------------------------------------------------ made ready

    def prepare(
        self,
        problems: int = 1,
        *,
        guide: Guide | Cost | None = None,
        replanning: bool = False,
        tempo: float = 1.0,
        precision: Precision = "float32",
        compiled: bool = False,
        **options: Any,
    ) -> None:
        """Make plans of one shape ready, so that planning them is fast: for a control loop, before it begins.

        Later plans of as many problems with the same guide, tempo and options are the same plans (rounding apart) in
        less time: on a GPU everything is one CUDA graph, on a CPU the network is frozen. Weights that change
        afterwards are not seen on a CPU.

        Args:
            problems: P, planned together.
            guide: what to prefer; the very object that plans will be asked with.
            replanning: plans that go on from a previous one.
            tempo: as for `plan`.
            precision: of the network's own arithmetic.
            compiled: also compile the network (torch.compile; minutes, once).
            **options: fields of `options.Sampling`.

        Raises:
            ValueError: a way of sampling that draws its noise elsewhere: ddpm, or particles.
        """
        problem = self.problem([0.0] * len(self.spec.observation_names), [0.0] * len(self.spec.position) or None)
        sampling, wish = self.sampling.changed(options), self._wish(guide, tempo)
        sampling = sampling.fitting(guided=wish is not None, raced=self.plant is not None)
        if sampling.sampler == "ddpm" or (wish is not None and sampling.guidance == "particles"):
            raise ValueError("plans sampled with ddpm or by particles cannot be prepared; use ddim or dpm++")
        generators = [torch.Generator().manual_seed(i) for i in range(problems)]
        batch = Batch([problem] * problems, generators, sampling, wish)
        if replanning:
            before = self._one_leg(batch)
            batch = replace(batch, previous=[(plan, 1.0) for plan in before])
        question = batch.question(self.spec, self.horizon)
        predict = replace(self.predict, denoiser=quickened(self.denoiser, precision, compiled))

        def work(tensors: Tensors, draw: Draw) -> tuple[Tensor, ...]:
            seen = None if wish is None else replace(wish, passed=tensors.get("passed"))
            return self._answer(Question(**tensors), replace(batch, wish=seen), predict, draw)

        noise = (self.horizon, self.spec.width)
        ready: Ready = work
        if self.device.type == "cuda":
            ready = Graph(work, question.tensors(), problems=problems, noise=noise, device=self.device)
        else:
            work(question.tensors(), drawing(generators, noise, self.device))
        self._ready[shape_of(batch, question)] = ready

    def sampler(
        self,
        problems: int,
        *,
        generator: torch.Generator | None = None,
        precision: Precision = "float32",
        compiled: bool = False,
        **options: Any,
    ) -> Callable[[Tensor, Tensor | None], Tensor]:
        """Plans by the thousand, as tensors: nothing is judged, chosen or raced.

        Args:
            problems: P, planned at each call.
            generator: source of noise, on the planner's device.
            precision: of the network's own arithmetic.
            compiled: also compile the network (torch.compile; minutes, once).
            **options: fields of `options.Sampling`.

        Returns:
            A function of starts (P, O) and goals (P, positions) to trajectories (P, K, H, D), all in environment units
            and on the planner's device; on a GPU the next call overwrites them.
        """
        goals = len(self.spec.position)
        nowhere = self.problem([0.0] * len(self.spec.observation_names), [0.0] * goals if goals else None)
        sampling, device = self.sampling.changed({**options, "select": "first"}), self.device
        generator = generator or torch.Generator(device).manual_seed(0)
        predict = replace(self.predict, denoiser=quickened(self.denoiser, precision, compiled))
        batch = Batch([nowhere], [generator], sampling)
        mask, known = nowhere.mask.to(device), nowhere.values.to(device)
        pinned, shape = mask.expand(problems * sampling.candidates, -1, -1), (self.horizon, self.spec.width)

        def work(tensors: Tensors, draw: Draw) -> tuple[Tensor]:
            asked = known.expand(problems, -1, -1).clone()
            asked[:, 0, self.spec.observations] = tensors["starts"]
            for i, column in enumerate(self.spec.position_columns):
                asked[:, -1, column] = tensors["goals"][:, i]
            values = asked.unsqueeze(1).expand(-1, sampling.candidates, -1, -1).flatten(0, 1)
            question = Question(pinned, values, pinned, values)
            *_, end = self._denoise(question, batch, predict, draw)
            made = torch.where(pinned, values, self.normalizer.denormalize(end.noisy))
            return (made.unflatten(0, (problems, sampling.candidates)),)

        sizes = {"starts": len(self.spec.observation_names), "goals": goals}
        inputs = {name: torch.zeros(problems, size) for name, size in sizes.items()}
        draw = drawing([generator], shape, device)
        ready: Ready = work
        if device.type == "cuda":  # one source of noise for all, so its problems count as one
            ready = Graph(work, inputs, problems=1, noise=shape, device=device, device_noise=generator, keep=True)

        def sample(starts: Tensor, goals: Tensor | None = None) -> Tensor:
            return ready({"starts": starts, "goals": inputs["goals"] if goals is None else goals}, draw)[0]

        return sample

    # ------------------------------------------------------------------ inside

    def _wish(self, guide: Guide | Cost | None, tempo: float, past: Sequence[Array] = ()) -> Wish | None:
        """The guide as these plans are to be judged by it; None where nothing weighs anything."""
        kept = None if guide is None else as_guide(guide).without_zeros()
        return None if kept is None else Wish(kept, self.spec, self.normalizer, tempo, past)

    def _one_leg(self, batch: Batch) -> list[Plan]:
        """The candidates of each problem, judged and sorted, best first."""
        question = batch.question(self.spec, self.horizon)
        draw = drawing(batch.generators, (self.horizon, self.spec.width), torch.device("cpu"))
        if ready := self._ready.get(shape_of(batch, question)):
            trajectories, *verdict, scores = ready(question.tensors(), draw)
        else:
            trajectories, *verdict, scores = self._answer(question.to(self.device), batch, self.predict)
        guides = () if batch.wish is None else batch.wish.guide.describe()
        problems = len(batch.conditions)
        return sorted_plans(self.spec, trajectories, Verdict(*verdict), scores, problems=problems, guides=guides)

    @torch.no_grad()
    def _denoise(
        self, question: Question, batch: Batch, predict: CleanPredictor, draw: Draw | None = None
    ) -> Iterator[Step]:
        sampling, warm = batch.sampling, question.warm
        yield from denoise(
            predict,
            for_one_plan(self.scheduler, sampling.sampler, sampling.steps),
            question.pinned,
            self.normalizer.normalize(question.values),
            generators=batch.generators,
            temperature=sampling.temperature,
            eta=sampling.eta,
            steering=None if batch.wish is None else batch.wish.steering(question.pinned, sampling),
            warm=None if warm is None else self.normalizer.normalize(warm),
            skip=0 if warm is None else sampling.steps - sampling.warm_steps,
            draw=draw,
        )

    @torch.no_grad()
    def _answer(
        self, question: Question, batch: Batch, predict: CleanPredictor, draw: Draw | None = None
    ) -> tuple[Tensor, ...]:
        """Trajectories (B, H, D) in environment units, the parts of the `Verdict` on them, and their scores (B,).

        B counts K candidates, and one more where the plan before competes.
        """
        sampling, count = batch.sampling, batch.sampling.candidates
        *_, end = self._denoise(question, batch, predict, draw)
        clean, pinned, normalized = end.noisy, end.pinned, end.values
        if question.rivals is not None:
            clean, pinned, normalized = question.with_rivals(end, self.normalizer)
            count += 1
        clean = torch.where(pinned, normalized, clean)
        trajectories = question.exact(count, pinned, self.normalizer.denormalize(clean))
        if self.config.state_only:
            trajectories = self.inverse.acted(self.spec, trajectories)
        verdict = judge(
            self.spec,
            trajectories,
            predict,
            clean,
            pinned,
            normalized,
            batch.generators,
            levels=len(self.scheduler.alphas_cumprod),
            select=sampling.select,
            draw=draw,
        )
        choosing = batch.wish is not None and sampling.guidance != "gradient"
        liked = batch.wish.liking(clean, pinned) if batch.wish and choosing else None
        bound = self.config.consistency_bound
        scores = order(verdict, sampling.select, candidates=count, bound=bound, liked=liked)
        return trajectories, *verdict, scores
