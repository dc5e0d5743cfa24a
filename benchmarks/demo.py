"""The demo: everything from nothing, in minutes, with the program's own commands.

python -m diffplan.benchmarks.demo [--minutes M]
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

MINUTES = 5.0
EPISODES = 20


def commands(folder: Path, minutes: float) -> list[list[str]]:
    """The program's commands, in order."""
    run = str(folder / "run")
    return [
        ["train", "maze2d", "--minutes", f"{minutes:g}", "--output", run],
        [
            "plan",
            run,
            "--goal",
            "1,-1",
            "--start",
            "-1,1",
            "--output",
            str(folder / "plan.gif"),
            "--output",
            str(folder / "plan.png"),
            "--film",
            str(folder / "film.gif"),
        ],
        ["rollout", run, "--goal", "1,-1", "--start", "-1,1", "--output", str(folder / "rollout.gif")],
        ["evaluate", run, "--episodes", str(EPISODES), "--json", str(folder / "evaluation.json")],
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo into ./demo; the exit code of the first command that fails, or 0."""
    parser = argparse.ArgumentParser(description="diffplan from nothing to GIFs")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of training")
    parser.add_argument("--output", type=Path, default=Path("demo"))
    options = parser.parse_args(arguments)
    folder: Path = options.output / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    for words in commands(folder, options.minutes):
        print(f"\n$ {shlex.join(['diffplan', *words])}", flush=True)
        code = subprocess.run([sys.executable, "-m", "diffplan.cli.main", *words], check=False).returncode
        if code:
            return code
    print(f"\ndone in {(time.monotonic() - began) / 60:.1f} minutes; open these:")
    for file in sorted(folder.glob("*.*")):
        print(f"  {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
