"""The contracts of methods, and the values that they return."""
