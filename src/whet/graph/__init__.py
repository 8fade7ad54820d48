"""The operators of a decoder as a small typed graph: lowered, rewritten, planned. Needs no torch."""
