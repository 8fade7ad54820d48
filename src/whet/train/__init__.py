"""Descent on gradients: losses of distillation, trainable models, the loop that trains them."""
