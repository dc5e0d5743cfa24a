"""A planner's folder is whole and ours, or refused by the name of the file that is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from diffplan.planner.loading import check_files
from diffplan.planner.pipeline import TrajectoryPlanner

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(make_planner, make_returns, make_plant, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("planner")
    make_planner(returns=make_returns(), plant=make_plant(2, size=1.0)).save_pretrained(path)
    return path


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE = {
    "no index": ("model_index.json", lambda p: p.unlink()),
    "index cut short": ("model_index.json", lambda p: p.write_bytes(p.read_bytes()[:50])),
    "index no object": ("model_index.json", lambda p: p.write_text("[]")),
    "index not text": ("model_index.json", lambda p: p.write_bytes(b"\xff\xfe\x00")),
    "another pipeline": ("model_index.json", lambda p: edit(p, _class_name="StableDiffusionPipeline")),
    "foreign code": ("model_index.json", lambda p: edit(p, denoiser=["os", "system"])),
    "component no pair": ("model_index.json", lambda p: edit(p, denoiser=5)),
    "component missing": ("model_index.json", lambda p: edit(p, normalizer=None)),
    "foreign class": ("model_index.json", lambda p: edit(p, denoiser=["diffusers", "NoSuchModel"])),
    "spec missing": ("model_index.json", lambda p: edit(p, spec=None)),
    "spec foreign": ("model_index.json", lambda p: edit(p, spec={"color": "red"})),
    "sampling foreign": ("model_index.json", lambda p: edit(p, sampling={"color": "red"})),
    "no config": ("denoiser/config.json", lambda p: p.unlink()),
    "config cut short": ("denoiser/config.json", lambda p: p.write_bytes(p.read_bytes()[:20])),
    "config no object": ("denoiser/config.json", lambda p: p.write_text("[]")),
    "config empty": ("denoiser/config.json", lambda p: p.write_text("{}")),
    "config of a wider network": ("denoiser/config.json", lambda p: edit(p, width=16)),
    "config of a deeper network": ("denoiser/config.json", lambda p: edit(p, blocks=2)),
    "scheduler cut short": ("scheduler/scheduler_config.json", lambda p: p.write_bytes(p.read_bytes()[:20])),
    "no weights": (f"denoiser/{WEIGHTS}", lambda p: p.unlink()),
    "weights cut short": (f"denoiser/{WEIGHTS}", lambda p: p.write_bytes(p.read_bytes()[:-10])),
    "weights empty": (f"denoiser/{WEIGHTS}", lambda p: p.write_bytes(b"")),
    "weights not safetensors": (f"denoiser/{WEIGHTS}", lambda p: p.write_bytes(b"not a tensor" * 99)),
    "weights of another model": (
        f"denoiser/{WEIGHTS}",
        lambda p: shutil.copy(p.parent.parent / "normalizer" / WEIGHTS, p),
    ),
    "statistics cut short": (f"normalizer/{WEIGHTS}", lambda p: p.write_bytes(p.read_bytes()[:-4])),
    "returns from elsewhere": ("model_index.json", lambda p: edit(p, returns=["os", "system"])),
    "returns from a namesake": ("model_index.json", lambda p: edit(p, returns=["diffplanner.returns", "ReturnModel"])),
    "returns a number": ("model_index.json", lambda p: edit(p, returns=5)),
    "returns no pair": ("model_index.json", lambda p: edit(p, returns="os")),
    "returns without a library": ("model_index.json", lambda p: edit(p, returns=[None, "ReturnModel"])),
    "returns of a foreign class": ("model_index.json", lambda p: edit(p, returns=["diffusers", "NoSuchModel"])),
    "returns of another kind": (
        "model_index.json",
        lambda p: edit(p, returns=["diffplan.planner.unet", "TemporalUNet"]),
    ),
    "returns not there": ("returns", shutil.rmtree),
    "returns config cut short": ("returns/config.json", lambda p: p.write_bytes(p.read_bytes()[:20])),
    "returns config empty": ("returns/config.json", lambda p: p.write_text("{}")),
    "returns config of a wider network": ("returns/config.json", lambda p: edit(p, width=16)),
    "returns config that cannot be": ("returns/config.json", lambda p: edit(p, discount=2.0)),
    "no returns weights": (f"returns/{WEIGHTS}", lambda p: p.unlink()),
    "returns weights cut short": (f"returns/{WEIGHTS}", lambda p: p.write_bytes(p.read_bytes()[:-10])),
    "returns weights of another model": (
        f"returns/{WEIGHTS}",
        lambda p: shutil.copy(p.parent.parent / "denoiser" / WEIGHTS, p),
    ),
    "plant from elsewhere": ("model_index.json", lambda p: edit(p, plant=["os", "system"])),
    "plant of another kind": ("model_index.json", lambda p: edit(p, plant=["diffplan.planner.unet", "TemporalUNet"])),
    "plant not there": ("plant", shutil.rmtree),
    "plant config cut short": ("plant/config.json", lambda p: p.write_bytes(p.read_bytes()[:20])),
    "plant config empty": ("plant/config.json", lambda p: p.write_text("{}")),
    "plant config of another grid": ("plant/config.json", lambda p: edit(p, voxels=[28, 29])),
    "plant config of more axes": ("plant/config.json", lambda p: edit(p, axes=3)),
    "plant config of an endless grid": ("plant/config.json", lambda p: edit(p, voxels=[10**6, 10**6])),
    "plant config without a grid": ("plant/config.json", lambda p: edit(p, voxels=5)),
    "no plant weights": (f"plant/{WEIGHTS}", lambda p: p.unlink()),
    "plant weights cut short": (f"plant/{WEIGHTS}", lambda p: p.write_bytes(p.read_bytes()[:-10])),
    "plant weights of another model": (
        f"plant/{WEIGHTS}",
        lambda p: shutil.copy(p.parent.parent / "normalizer" / WEIGHTS, p),
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_and_foreign_files_are_refused_by_name(copy, name):
    file, damage = DAMAGE[name]
    damage(copy / file)
    with pytest.raises(ValueError, match=str(copy)) as caught:
        TrajectoryPlanner.from_pretrained(copy)
    assert "\n" not in str(caught.value)


def test_files_named_exactly(copy):
    """Where a single file is cut short, the message says which."""
    networks = (f"denoiser/{WEIGHTS}", f"returns/{WEIGHTS}", f"plant/{WEIGHTS}")
    parts = (*networks, "normalizer/config.json", "returns/config.json", "plant/config.json")
    for file in ("model_index.json", *parts):
        whole = (copy / file).read_bytes()
        (copy / file).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=file):
            TrajectoryPlanner.from_pretrained(copy)
        (copy / file).write_bytes(whole)
    TrajectoryPlanner.from_pretrained(copy)


def test_what_is_refused_is_refused_before_anything_is_loaded(copy):
    """The denoiser is whole, but its return model would come from elsewhere."""
    check_files(copy)
    edit(copy / "model_index.json", returns=["os", "system"])
    with pytest.raises(ValueError, match="returns comes from 'os'"):
        check_files(copy)


@pytest.mark.parametrize("part", ["returns", "plant"])
class TestPartsThatNotEveryRunHas:
    @pytest.mark.parametrize("entry", [5, 0, False, "", [], {}, "os", ["os", "system"]])
    def test_one_that_is_none_of_ours_is_named(self, copy, part, entry):
        edit(copy / "model_index.json", **{part: entry})
        with pytest.raises(ValueError, match=rf"model_index\.json: {part} comes from"):
            check_files(copy)

    def test_a_folder_of_one_that_no_planner_has_is_not_looked_at(self, copy, part):
        edit(copy / "model_index.json", **{part: [None, None]})
        (copy / part / WEIGHTS).write_bytes(b"not a tensor")
        assert getattr(TrajectoryPlanner.from_pretrained(copy), part) is None
