"""Entry points (`python -m experiments.NAME`) and the configs that they launch."""
