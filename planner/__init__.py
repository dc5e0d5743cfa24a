"""Arrays in, plans out: the diffusion planner itself."""
