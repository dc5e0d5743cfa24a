"""Puts a trained planner into the package, in half precision: what `diffplan plan` uses where there is no run.

python -m diffplan.benchmarks.ship RUN
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from diffplan.envs.runs import ASSETS, find_run, read_record, save_planner
from diffplan.planner.pipeline import TrajectoryPlanner

MOST_BYTES = 3 * 2**20


def ship(run: Path, target: Path) -> int:
    """Write the run's planner to `target` with the record of its training; the bytes it takes.

    Raises:
        ValueError: the run is broken, or too large to ship.
    """
    read_record(run)
    planner = TrajectoryPlanner.from_pretrained(find_run(run))
    networks = [n for n in (planner.denoiser, planner.returns, planner.inverse) if n is not None]
    size = 2 * sum(p.numel() for network in networks for p in network.parameters())
    if size > MOST_BYTES:
        raise ValueError(
            f"{run}: {size / 2**20:.1f} MiB in half precision; at most {MOST_BYTES / 2**20:.0f} are shipped"
        )
    save_planner(planner, target, half=True)
    shutil.copy(run / "run.json", target / "run.json")
    return sum(p.stat().st_size for p in target.rglob("*") if p.is_file())


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    run = parser.parse_args(arguments).run
    target = ASSETS / read_record(run)["task"]
    size = ship(run, target)
    sys.stdout.write(f"{target}: {size / 2**20:.2f} MiB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
