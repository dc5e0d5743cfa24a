"""Guides written as text: `name:parameter=value,...@weight`, such as `avoid:x=1,y=0,radius=0.4@5`.

A guide of one's own is a function of numbers that returns a `Guide`; it is known here once it is registered, or
named by an entry point in the group "diffplan.guides".
"""

from __future__ import annotations

import importlib.metadata
import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from .guide import Guide
from .motion import effort, learned_return, length, smooth, speed
from .places import Clearance, avoid, goal, region, via, wall, workspace

if TYPE_CHECKING:
    from ..returns import ReturnModel

GROUP = "diffplan.guides"

_FAMILY: dict[str, Callable[..., Guide]] = {
    "avoid": avoid,
    "effort": effort,
    "goal": goal,
    "length": length,
    "region": region,
    "return": learned_return,
    "smooth": smooth,
    "speed": speed,
    "via": via,
    "wall": wall,
    "workspace": workspace,
}


@dataclass(frozen=True)
class Surroundings:
    """What guides need that no SPEC can say: parameters of these names are filled from here.

    Attributes:
        clearance: signed distance from the nearest wall, of a task that has a map.
        returns: the return model of a run that has one.
        why_not: why something is missing, by its name.
    """

    clearance: Clearance | None = None
    returns: ReturnModel | None = None
    why_not: tuple[tuple[str, str], ...] = ()

    def lack(self, name: str) -> str:
        """Why `name` is not there."""
        return dict(self.why_not).get(name, f"{name} is missing")


_PROVIDED = tuple(f.name for f in fields(Surroundings) if f.name != "why_not")


def register_guide(name: str, make: Callable[..., Guide]) -> None:
    """Make a guide known by its name, replacing one of the same name.

    Args:
        name: as written in a SPEC.
        make: a function of numbers; its docstring's first line says what it prefers, a line "Example: ..." has a SPEC.
    """
    _FAMILY[name] = make


def all_guides() -> dict[str, Callable[..., Guide]]:
    """Every known guide by name: built in, registered, and from entry points in the group "diffplan.guides"."""
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.name not in _FAMILY:
            try:
                register_guide(point.name, point.load())
            except Exception as error:  # somebody else's package: one that is broken must not take the others along
                warnings.warn(f"guide {point.name!r} of {point.value} cannot be loaded: {error}", stacklevel=2)
    return dict(sorted(_FAMILY.items()))


def parse_guide(text: str, around: Surroundings = Surroundings()) -> Guide:
    """One guide from its SPEC; the weight after "@" is 1 where it is left out.

    Raises:
        ValueError: an unknown guide or parameter, a missing value, one that is no finite number or cannot be, or a
            guide that needs what the run or the task does not have; the message shows what is known and an example.
    """
    body, _, weight = text.partition("@")
    name, _, rest = body.partition(":")
    family = all_guides()
    if name not in family:
        raise ValueError(
            f"unknown guide {name!r} in {text!r}; known: {', '.join(family)}; for example {example('avoid')}"
        )
    make, example_text = family[name], _example(name, family[name])
    known, given = parameters(make), {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if key not in known or not equals:
            raise ValueError(
                f"guide {name!r} takes {', '.join(known) or 'no parameters'}, got {part!r} in {text!r}; "
                f"for example {example_text}"
            )
        if key in given:
            raise ValueError(f"guide {text!r} gives {key} twice; for example {example_text}")
        given[key] = _number(value, text)
    missing = [key for key, needed in known.items() if needed and key not in given]
    if missing:
        raise ValueError(f"guide {text!r} lacks {', '.join(missing)}; for example {example_text}")
    factor = _number(weight, text) if "@" in text else 1.0
    if factor < 0:
        raise ValueError(f"guide {text!r} has a negative weight; a guide prefers, it cannot be turned round")
    for key in inspect.signature(make).parameters:
        if key in _PROVIDED:
            if getattr(around, key) is None:
                raise ValueError(f"guide {text!r} cannot be used here: {around.lack(key)}")
            given[key] = getattr(around, key)
    try:
        return make(**given) * factor
    except ValueError as error:
        raise ValueError(f"guide {text!r}: {error}; for example {example_text}") from error


def parse_guides(texts: Sequence[str], around: Surroundings = Surroundings()) -> Guide | None:
    """The sum of several SPECs; None for none."""
    total: Guide | None = None
    for text in texts:
        one = parse_guide(text, around)
        total = one if total is None else total + one
    return total


def parameters(make: Callable[..., Guide]) -> dict[str, bool]:
    """A guide's own parameters by name, and whether each must be given."""
    found = inspect.signature(make).parameters
    return {name: p.default is inspect.Parameter.empty for name, p in found.items() if name not in _PROVIDED}


def explain(name: str) -> tuple[str, str]:
    """What a guide prefers, and its parameters with their units."""
    make = all_guides()[name]
    lines = inspect.cleandoc(make.__doc__ or "").splitlines() or [""]
    units = [line.strip() for line in lines if line.strip().split(":")[0] in parameters(make)]
    return lines[0], "; ".join(units)


def example(name: str) -> str:
    """A SPEC of a guide: the one in its docstring, or one made of its parameters."""
    return _example(name, all_guides()[name])


def _example(name: str, make: Callable[..., Guide]) -> str:
    for line in (make.__doc__ or "").splitlines():
        if line.strip().startswith("Example:"):
            return line.partition(":")[2].strip().strip("`")
    needed = ",".join(f"{key}=1" for key, must in parameters(make).items() if must)
    return f"{name}:{needed}@1" if needed else f"{name}@1"


def _number(text: str, spec: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} in guide {spec!r} is not a finite number")
    return value
