"""Calibration: tokens, statistics of activations, and the walk over the blocks."""
