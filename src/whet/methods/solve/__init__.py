"""The mathematics that methods share: min tr((Q-T) H (Q-T)ᵀ) over the members of a number format.

Matrices are held transposed here, [in out], since every loop goes over inputs; H is symmetric, T is
the target and Q what the format can write. Everything is row-wise in the weight: an output never
sees another, unless the format shares a parameter between them.
"""
