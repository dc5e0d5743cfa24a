"""What a plan should prefer, as values of one type.

    careful = 2.0 * speed(max=2.0) + avoid(x=1.0, y=0.0, radius=0.4).during(0.2, 1.0)

`guide` is the type, `places` and `motion` its members, `marks` what they look like, `specs` the way they are written on
a command line.
"""

from .guide import Cost, Guide, Sight, Term, as_guide
from .marks import Ball, Block, Box, Disc, Mark, Region, SpeedLimit, Spot
from .motion import effort, learned_return, length, smooth, speed
from .places import avoid, goal, region, via, wall, workspace
from .specs import Surroundings, all_guides, example, explain, parse_guide, parse_guides, register_guide

__all__ = [
    "Ball",
    "Block",
    "Box",
    "Cost",
    "Disc",
    "Guide",
    "Mark",
    "Region",
    "Sight",
    "SpeedLimit",
    "Spot",
    "Surroundings",
    "Term",
    "all_guides",
    "as_guide",
    "avoid",
    "effort",
    "example",
    "explain",
    "goal",
    "learned_return",
    "length",
    "parse_guide",
    "parse_guides",
    "region",
    "register_guide",
    "smooth",
    "speed",
    "via",
    "wall",
    "workspace",
]
