"""Guides written as text: `name:parameter=value,...@weight`, such as `avoid:x=1,y=0,radius=0.4@5`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence

from .guides import FAMILY, Guide

EXAMPLES = {
    "avoid": "avoid:x=1,y=0,radius=0.4@5",
    "effort": "effort@0.1",
    "goal": "goal:x=1,y=1@2",
    "length": "length@1",
    "smooth": "smooth@0.001",
    "speed": "speed:max=3@1",
    "via": "via:x=1,y=0@2",
}


def parse_guide(text: str) -> Guide:
    """One guide from its SPEC; the weight after "@" is 1 where it is left out.

    Raises:
        ValueError: an unknown guide or parameter, a missing value, or one that is no finite number; the message
            shows what is known and an example.
    """
    body, _, weight = text.partition("@")
    name, _, rest = body.partition(":")
    if name not in FAMILY:
        raise ValueError(
            f"unknown guide {name!r} in {text!r}; known: {', '.join(FAMILY)}; for example {EXAMPLES['avoid']}"
        )
    wanted, given = parameters(name), {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if key not in wanted or not equals:
            raise ValueError(
                f"guide {name!r} takes {', '.join(wanted) or 'no parameters'}, got {part!r} in {text!r}; "
                f"for example {EXAMPLES[name]}"
            )
        given[key] = _number(value, text)
    missing = [key for key in wanted if key not in given]
    if missing:
        raise ValueError(f"guide {text!r} lacks {', '.join(missing)}; for example {EXAMPLES[name]}")
    return FAMILY[name](**given) * (_number(weight, text) if "@" in text else 1.0)


def parse_guides(texts: Sequence[str]) -> Guide | None:
    """The sum of several SPECs; None for none."""
    total: Guide | None = None
    for text in texts:
        one = parse_guide(text)
        total = one if total is None else total + one
    return total


def parameters(name: str) -> list[str]:
    """Names of a guide's parameters."""
    return list(inspect.signature(FAMILY[name]).parameters)


def explain(name: str) -> tuple[str, str]:
    """A guide's first line and the units of its parameters."""
    lines = inspect.cleandoc(FAMILY[name].__doc__ or "").splitlines()
    units = [line.strip() for line in lines if line.strip().split(":")[0] in parameters(name)]
    return lines[0], "; ".join(units)


def _number(text: str, spec: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} in guide {spec!r} is not a finite number")
    return value
