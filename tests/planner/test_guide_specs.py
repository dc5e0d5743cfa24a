"""Guides written as text, and guides of one's own."""

from __future__ import annotations

import importlib.metadata

import pytest
import torch

from diffplan.planner.guides import (
    Guide,
    Sight,
    Surroundings,
    all_guides,
    avoid,
    effort,
    example,
    explain,
    goal,
    length,
    parse_guide,
    parse_guides,
    register_guide,
    specs,
    speed,
)
from diffplan.planner.guides.places import wall

BUILT_IN = ["avoid", "effort", "goal", "length", "region", "return", "smooth", "speed", "via", "wall", "workspace"]


def beside_a_wall(points: torch.Tensor) -> torch.Tensor:
    return points[..., 0]


@pytest.fixture
def around(make_returns) -> Surroundings:
    return Surroundings(clearance=beside_a_wall, returns=make_returns().double())


@pytest.fixture
def sight(spec, generator) -> Sight:
    path = torch.randn(4, 6, spec.width, generator=generator, dtype=torch.float64)
    return Sight(spec, path, path, torch.zeros(4, dtype=torch.long))


@pytest.fixture
def family(monkeypatch):
    """Guides that a test makes known are forgotten after it."""
    monkeypatch.setattr(specs, "_FAMILY", dict(specs._FAMILY))


def stay_left(edge: float) -> Guide:
    """Stay left of a line: the squared excess.

    Args:
        edge: metres.

    Example: `stay_left:edge=0.5@2`
    """
    return Guide.of(lambda spec, path: (path[..., 2] - edge).relu().square().sum(-1), f"stay_left:edge={edge:g}")


class TestWords:
    def test_the_built_in_ones_are_known(self):
        assert [name for name in all_guides() if name in BUILT_IN] == BUILT_IN

    @pytest.mark.parametrize("name", BUILT_IN)
    def test_its_own_example_can_be_used(self, name, around, sight):
        text = example(name)
        assert text.partition(":")[0].partition("@")[0] == name
        score = parse_guide(text, around).value(sight)
        assert score.shape == (4,)
        assert score.isfinite().all()

    @pytest.mark.parametrize(
        "text",
        [
            *map(example, BUILT_IN),
            "avoid:x=0.5,y=-0.25,width=3,height=1.5@0.3",
            "avoid:x=0.5,y=-0.25,width=3,height=1.5,margin=0.25",
            "avoid:x=-1e-3,y=2e3,radius=1500",
            "workspace:y_max=0.25@4",
            "speed:max=0.125@1e-3",
            "goal:x=1,y=1@0",
        ],
    )
    def test_its_description_is_a_spec_of_the_same(self, text, around, sight):
        guide = parse_guide(text, around)
        again = parse_guides(guide.describe(), around)
        assert again.describe() == guide.describe()
        assert torch.equal(again.value(sight), guide.value(sight))

    @pytest.mark.parametrize(
        "text",
        [
            "avoid:x=1.3,y=0.7,z=0.5,radius=0.1,margin=0.02@100",
            "avoid:x=1.3,y=0.7,z=-0.5,width=0.1,height=0.2,depth=0.3,margin=0.02",
            "goal:x=1,y=1,z=0@2",
            "region:x=1,y=1,z=0.5,radius=0.2",
            "via:x=1,y=0,z=-0.25@300",
            "workspace:x_min=-1,z_min=0,z_max=0.5@30",
        ],
    )
    def test_in_space_too(self, text, space, generator):
        path = torch.randn(4, 6, space.width, generator=generator, dtype=torch.float64)
        guide = parse_guide(text)
        (line,) = guide.describe()
        assert line.removesuffix("@1") == text
        assert torch.equal(parse_guide(line).score(space, path), guide.score(space, path))

    @pytest.mark.parametrize(
        ("text", "same"),
        [
            ("avoid:x=1,y=-2,radius=0.4@5", 5 * avoid(1, -2, radius=0.4)),
            ("avoid:height=2,width=1,y=0.1,x=0", avoid(0, 0.1, width=1, height=2)),
            ("goal:y=2,x=1@0.5", 0.5 * goal(1, 2)),
            ("speed:max=1e-1", speed(0.1)),
            ("effort", effort()),
            ("effort:@3", 3 * effort()),
            ("wall:margin=2@4", 4 * wall(beside_a_wall, margin=2)),
        ],
    )
    def test_it_means_what_python_says(self, text, same, around, sight):
        assert parse_guide(text, around).describe() == same.describe()
        assert torch.equal(parse_guide(text, around).value(sight), same.value(sight))

    def test_several_are_added_in_order(self, sight):
        texts = ["goal:x=1,y=1@2", "effort@3", "goal:x=1,y=1@4"]
        total = parse_guides(texts)
        assert total.describe() == tuple(texts)
        torch.testing.assert_close(total.value(sight), sum(parse_guide(t).value(sight) for t in texts))
        assert parse_guides([]) is None

    @pytest.mark.parametrize("name", BUILT_IN)
    def test_it_explains_itself_and_its_parameters(self, name):
        says, units = explain(name)
        assert says.endswith(".")
        for parameter in specs.parameters(all_guides()[name]):
            assert f"{parameter}: " in units

    def test_what_the_task_provides_is_no_parameter(self):
        assert specs.parameters(all_guides()["wall"]) == {"margin": True}
        assert specs.parameters(all_guides()["return"]) == {}
        needed = [name for name, must in specs.parameters(avoid).items() if must]
        assert needed == ["x", "y"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "unknown guide ''"),
            ("@2", "unknown guide ''"),
            ("hurry@2", "unknown guide 'hurry'.*known: avoid, .*for example avoid:"),
            ("Effort", "unknown guide 'Effort'"),
            ("goal:x=1,w=2", "takes x, y, z, got 'w=2'.*for example goal:"),
            ("goal:x=1,y", "takes x, y, z, got 'y'"),
            ("goal:1,2", "takes x, y, z, got '1'"),
            ("effort:x=1", "takes no parameters, got 'x=1'"),
            ("goal:x=1", "lacks y.*for example goal:"),
            ("goal", "lacks x, y"),
            ("goal:x=1,y=1,x=1", "gives x twice"),
            ("goal:x=,y=1", "'' .* no"),
            ("goal:x=one,y=1", "'one'"),
            ("goal:x=nan,y=1", "'nan'.*finite"),
            ("goal:x=1,y=-inf", "'-inf'.*finite"),
            ("goal:x=1,y=1@", "'' .*finite"),
            ("goal:x=1,y=1@nan", "'nan'.*finite"),
            ("goal:x=1,y=1@2@3", "'2@3'.*finite"),
            ("effort@-1", "negative weight"),
            ("avoid:x=1,y=0", "radius, or width and height.*for example avoid:"),
            ("avoid:x=1,y=0,width=1", "radius, or width and height"),
            ("avoid:x=1,y=0,radius=1,width=1,height=1", "radius, or width and height"),
            ("avoid:x=1,y=0,z=1,width=1,height=1", "a box with z takes depth"),
            ("avoid:x=1,y=0,width=1,height=1,depth=1", "depth takes z"),
            ("avoid:x=1,y=0,z=1,width=1,height=1,depth=0", "depth=0 must be positive"),
            ("region:x=1,y=0", "lacks radius"),
            ("region:x=1,y=0,radius=0", "radius=0 must be positive.*for example region:"),
            ("workspace", "needs one limit at least: x_min, x_max, .*for example workspace:"),
            ("workspace:y_min=1,y_max=0.5", "y_min=1 must be less than y_max=0.5"),
            ("workspace:z_min=1,z_max=1", "z_min=1 must be less than z_max=1"),
            ("avoid:x=1,y=0,radius=-1", "radius=-1 must be positive.*for example avoid:"),
            ("avoid:x=1,y=0,width=0,height=1", "width=0 must be positive"),
            ("avoid:x=1,y=0,radius=1,margin=-0.1", "margin=-0.1 must not be negative"),
            ("speed:max=0", "max=0 must be positive"),
            ("wall:margin=-1", "margin=-1 must be positive"),
            ("wall:margin=1,clearance=2", "takes margin, got 'clearance=2'"),
        ],
    )
    def test_a_spec_that_cannot_be_shows_what_is_wrong(self, text, says, around):
        with pytest.raises(ValueError, match=says) as caught:
            parse_guide(text, around)
        assert repr(text) in str(caught.value)

    @pytest.mark.parametrize(("text", "lacks"), [("wall:margin=1", "clearance"), ("return@2", "returns")])
    def test_what_is_not_there_is_named_with_its_reason(self, text, lacks):
        with pytest.raises(ValueError, match=f"{lacks} is missing"):
            parse_guide(text)
        with pytest.raises(ValueError, match="cannot be used here: train one first"):
            parse_guide(text, Surroundings(why_not=((lacks, "train one first"), ("else", "no"))))

    def test_one_bad_spec_of_several_is_refused(self):
        with pytest.raises(ValueError, match="unknown guide 'hurry'"):
            parse_guides(["effort", "hurry"])


@pytest.mark.usefixtures("family")
class TestGuidesOfOnesOwn:
    def test_registered_it_is_one_of_the_family(self, spec):
        register_guide("stay_left", stay_left)
        path = torch.zeros(1, 3, spec.width)
        path[0, :, 2] = torch.tensor([0.0, 1.0, 2.0])
        guide = parse_guide("stay_left:edge=0.5@3")
        assert guide.score(spec, path).item() == pytest.approx(-3 * (0.5**2 + 1.5**2))
        assert guide.describe() == ("stay_left:edge=0.5@3",)
        assert explain("stay_left") == ("Stay left of a line: the squared excess.", "edge: metres.")
        assert example("stay_left") == "stay_left:edge=0.5@2"
        assert list(all_guides()) == sorted([*BUILT_IN, "stay_left"])
        with pytest.raises(ValueError, match="lacks edge.*for example stay_left:edge=0.5@2"):
            parse_guide("stay_left")

    def test_without_words_it_has_an_example_all_the_same(self):
        register_guide("near", lambda x, y=0.0: goal(x, y))
        assert explain("near") == ("", "")
        assert example("near") == "near:x=1@1"
        assert parse_guide(example("near")).describe() == ("goal:x=1,y=0@1",)

    def test_it_may_ask_for_the_map(self, around, spec):
        def touch(clearance, weight: float = 1.0) -> Guide:
            return Guide.of(lambda spec, path: weight * clearance(path[..., 2:4]).sum(-1), "touch")

        register_guide("touch", touch)
        path = torch.ones(1, 3, spec.width)
        assert parse_guide("touch:weight=2", around).score(spec, path).item() == -6
        with pytest.raises(ValueError, match="clearance is missing"):
            parse_guide("touch")

    def test_a_later_one_of_the_same_name_replaces_it(self, sight):
        register_guide("effort", lambda: 7 * goal(1, 1))
        assert torch.equal(parse_guide("effort").value(sight), (7 * goal(1, 1)).value(sight))

    def test_entry_points_are_found(self, monkeypatch, sight):
        point = importlib.metadata.EntryPoint("hurry", "diffplan.planner.guides:length", specs.GROUP)
        monkeypatch.setattr(
            importlib.metadata, "entry_points", lambda *, group: [point] if group == specs.GROUP else []
        )
        assert specs.GROUP == "diffplan.guides"
        assert list(all_guides()) == sorted([*BUILT_IN, "hurry"])
        assert torch.equal(parse_guide("hurry@2").value(sight), 2 * length().value(sight))

    def test_an_entry_point_cannot_take_a_built_in_name(self, monkeypatch):
        point = importlib.metadata.EntryPoint("effort", "no.such.module:guide", specs.GROUP)
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [point])
        assert all_guides()["effort"] is effort
