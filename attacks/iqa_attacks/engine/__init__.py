"""Gradient ascent with shared gradients: states, moves, steps."""
