"""Picture and video files, written in one piece: .png, .gif, .mp4.

Pictures are uint8 (height, width, 3); height and width are even, as video needs.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import imageio
import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image

from diffplan.planner.files import whole_file

from .colours import AGENT, AHEAD, AVOID, FREE, GOAL, GREY, INK, SPEED_COLOURS, START, TIME_COLOURS, VIA, WALL

Picture = NDArray[np.uint8]
File = str | os.PathLike[str]

GIF_COLOURS = 196  # of 256: fewer make smaller files


def check_output(path: File, allowed: Sequence[str] = (".png", ".gif", ".mp4", ".json")) -> Path:
    """The path, if a file of an allowed kind can be written there.

    Raises:
        ValueError: unknown suffix, a folder, or a parent folder that is missing or cannot be written.
    """
    out = Path(path)
    if out.is_dir():
        raise ValueError(f"output {out} is a folder; name a file in it, such as {out / ('plan' + allowed[0])}")
    if out.suffix.lower() not in allowed:
        raise ValueError(f"output {out} ends in {out.suffix or 'nothing'!r}; use one of {', '.join(allowed)}")
    if not out.parent.is_dir():
        raise ValueError(f"output {out}: no folder {out.parent}; make it first: mkdir -p {out.parent}")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise ValueError(f"output {out}: the folder {out.parent} cannot be written; choose another")
    return out


def save_picture(path: File, picture: Picture) -> None:
    """Write a picture (h, w, 3) as .png, in one piece."""
    out = check_output(path, (".png",))
    with whole_file(out) as scratch:
        Image.fromarray(picture).save(scratch, optimize=True)


def save_video(path: File, frames: Iterable[Picture], *, fps: float) -> None:
    """Write frames (h, w, 3) as .gif (looping) or .mp4, in one piece; `fps` is frames per second.

    A GIF holds a frame that repeats once, for longer, and times frames in hundredths of a second.

    Raises:
        ValueError: no frames, an fps that is not positive, or an output that `check_output` refuses.
    """
    out = check_output(path, (".gif", ".mp4"))
    if not fps > 0:
        raise ValueError(f"fps={fps} must be positive")
    write = _write_gif if out.suffix.lower() == ".gif" else _write_mp4
    with whole_file(out) as scratch:
        write(scratch, frames, fps)


def _write_gif(path: Path, frames: Iterable[Picture], fps: float) -> None:
    """All frames share one palette, made from some of them: small, and colours do not flicker."""
    pictures = [Image.fromarray(np.asarray(f)) for f in frames]
    if not pictures:
        raise ValueError(f"no frames to write to {path.suffix}")
    some = [pictures[i] for i in np.unique(np.linspace(0, len(pictures) - 1, 6).astype(int))]
    named = ("white", WALL, FREE, INK, GREY, AHEAD, GOAL, START, AGENT, VIA, AVOID)  # exact, however few their pixels
    shades = [colours(np.linspace(0, 1, 36))[:, :3] for colours in (TIME_COLOURS, SPEED_COLOURS)]
    ours = np.round(255 * np.concatenate([np.array([*map(to_rgb, named)]), *shades])).astype(int)
    sample = Image.fromarray(np.concatenate([np.asarray(p) for p in some])).quantize(GIF_COLOURS - len(ours))
    found = np.reshape(sample.getpalette() or [], (-1, 3))
    near = (np.abs(found[:, None] - ours).max(axis=-1) <= 8).any(axis=1)  # Pillow's coarse look-up mixes them up
    palette = Image.new("P", (1, 1))
    palette.putpalette([int(v) for v in np.concatenate([ours, found[~near]]).ravel()])
    reduced = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    milliseconds = max(20, round(100 / fps) * 10)
    reduced[0].save(path, format="GIF", save_all=True, append_images=reduced[1:], duration=milliseconds, loop=0)


def _write_mp4(path: Path, frames: Iterable[Picture], fps: float) -> None:
    """H.264 that every browser plays: even sizes, yuv420p."""
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"no frames to write to {path.suffix}")
    writer: Any = imageio.get_writer(
        path,
        format="FFMPEG",
        fps=fps,
        codec="libx264",
        pixelformat="yuv420p",  # type: ignore
        quality=8,
        macro_block_size=2,
        ffmpeg_log_level="error",
    )
    with writer:
        for frame in itertools.chain([first], frames):
            writer.append_data(frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2])
