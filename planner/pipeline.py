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

from .batch import Batch
from .conditions import Conditions, apply_actions, arrive_at, start_at
from .course import as_plan
from .diffusion import Prediction, check_prediction
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
from .sampling import CleanPredictor, Step, denoise, draw_noise
from .schedulers import Scheduler, for_one_plan
from .selection import judge, order
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
        for network in (denoiser, returns, inverse):
            if network is not None:
                network.eval()

    @property
    def device(self) -> torch.device:
        """Where the denoiser is; diffusers' own looks through every module, at each of several looks per plan."""
        return next(self.denoiser.parameters()).device

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
        known = start_at(self.spec, self.horizon, start)
        if self.config.state_only:  # it was trained on states alone, with actions left out
            known |= apply_actions(self.spec, self.horizon, torch.zeros(self.horizon, len(self.spec.action_names)))
        return known if goal is None else known | arrive_at(self.spec, self.horizon, goal)

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
        pinned, values = batch.pins(self.spec, self.horizon, self.device)
        before = generators[0].get_state()
        noise = draw_noise(generators, sampling.candidates, values.shape[1:], self.device)
        generators[0].set_state(before)  # so that the film begins in the very noise that the plan begins in
        yield torch.where(pinned, values, self.normalizer.denormalize(sampling.temperature * noise)).cpu()
        for step in self._denoise(batch):
            yield self.normalizer.denormalize(step.noisy).cpu()

    def score(self, guide: Guide | Cost, plan: Plan, *, tempo: float = 1.0) -> NDArray[np.float64]:
        """How much a guide likes each candidate (K,) of a plan; higher is better."""
        wish = self._wish(guide, tempo)
        if wish is None:
            return np.zeros(len(plan.trajectories))
        return wish.liking_of(plan, self.device)

    # ------------------------------------------------------------------ inside

    def _wish(self, guide: Guide | Cost | None, tempo: float, past: Sequence[Array] = ()) -> Wish | None:
        """The guide as these plans are to be judged by it; None where nothing weighs anything."""
        kept = None if guide is None else as_guide(guide).without_zeros()
        return None if kept is None else Wish(kept, self.spec, self.normalizer, tempo, past)

    def _one_leg(self, batch: Batch) -> list[Plan]:
        *_, end = self._denoise(batch)
        return self._choose(batch, end)

    @torch.no_grad()
    def _denoise(self, batch: Batch) -> Iterator[Step]:
        sampling = batch.sampling
        pinned, values = batch.pins(self.spec, self.horizon, self.device)
        warm = batch.warm_start(self.horizon)
        yield from denoise(
            self.predict,
            for_one_plan(self.scheduler, sampling.sampler, sampling.steps),
            pinned,
            self.normalizer.normalize(values),
            generators=batch.generators,
            temperature=sampling.temperature,
            eta=sampling.eta,
            steering=None if batch.wish is None else batch.wish.steering(pinned, sampling),
            warm=None if warm is None else self.normalizer.normalize(warm.to(self.device)),
            skip=0 if warm is None else sampling.steps - sampling.warm_steps,
        )

    @torch.no_grad()
    def _choose(self, batch: Batch, end: Step) -> list[Plan]:
        """Judge the candidates of each problem and sort them, best first."""
        sampling, count = batch.sampling, batch.sampling.candidates
        clean, pinned, normalized = end.noisy, end.pinned, end.values
        if batch.previous is not None and sampling.incumbent:
            clean, pinned, normalized = batch.with_incumbents(end, self.normalizer, self.horizon)
            count += 1
        clean = torch.where(pinned, normalized, clean)
        trajectories = batch.exact(count, pinned, self.normalizer.denormalize(clean))
        if self.config.state_only:
            trajectories = self.inverse.acted(self.spec, trajectories)
        verdict = judge(
            self.spec,
            trajectories,
            self.predict,
            clean,
            pinned,
            normalized,
            batch.generators,
            levels=len(self.scheduler.alphas_cumprod),
            select=sampling.select,
        )
        choosing = batch.wish is not None and sampling.guidance != "gradient"
        liked = batch.wish.liking(clean, pinned) if batch.wish and choosing else None
        bound = self.config.consistency_bound
        scores = order(verdict, sampling.select, candidates=count, bound=bound, liked=liked)
        guides = () if batch.wish is None else batch.wish.guide.describe()
        return sorted_plans(self.spec, trajectories, verdict, scores, problems=len(batch.conditions), guides=guides)
