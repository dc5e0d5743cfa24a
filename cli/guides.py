"""diffplan guides"""

from __future__ import annotations


def guides() -> None:
    """Every guide with its parameters, units and an example SPEC."""
    from diffplan.planner.guides import all_guides, example, explain

    from .screen import table

    table(
        "Guides: name:parameter=value,...@weight",
        ["guide", "what it prefers", "parameters", "example"],
        [[name, *explain(name), example(name)] for name in all_guides()],
        whole="example",  # to be copied
    )
