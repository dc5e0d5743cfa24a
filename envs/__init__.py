"""Tasks, data, environments and pictures."""
