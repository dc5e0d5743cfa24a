"""diffplan guides"""

from __future__ import annotations


def guides() -> None:
    """Every guide with its parameters, units and an example SPEC."""
    from diffplan.planner.guide_specs import EXAMPLES, explain
    from diffplan.planner.guides import FAMILY

    from .screen import table

    table(
        "Guides: name:parameter=value,...@weight",
        ["guide", "what it prefers", "parameters", "example"],
        [[name, *explain(name), EXAMPLES[name]] for name in FAMILY],
    )
