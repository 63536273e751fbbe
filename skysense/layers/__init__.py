"""Bricks that know no sensor: attention, windows, merging, tokens, positions, experts."""
