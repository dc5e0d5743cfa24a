"""diffplan render"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def render(
    file: Annotated[Path, typer.Argument(help="A plan or rollout that --output FILE.json wrote.")],
    output: Annotated[Path, typer.Option(help="Where to draw it: .gif, .mp4 or .png.")] = ...,  # type: ignore[assignment]
) -> None:
    """A saved plan or rollout as a picture."""
    from diffplan.envs.backend import use_backend
    from diffplan.envs.video import check_output

    check_output(output, allowed=(".gif", ".mp4", ".png"))
    if output.suffix != ".png":
        use_backend()  # before mujoco is imported: it reads its backend once
    from diffplan.envs.replay import draw_record

    draw_record(file, output)
    print(f"wrote {output}")
