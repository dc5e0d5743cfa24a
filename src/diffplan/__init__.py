"""diffplan."""
