"""The MLX engine: mlx-lm's models and batch caches."""
