"""Methods whose result is a product of two matrices, or holds one."""
