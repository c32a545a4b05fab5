"""CAR-FAC: a cascade of asymmetric resonators with fast-acting compression, differentiable."""
