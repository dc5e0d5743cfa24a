"""How good is it: metrics, evaluation, references, tables."""
