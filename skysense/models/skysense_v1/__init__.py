"""SkySense (CVPR 2024): the factorized encoder whose weights were released."""
