"""What runs a graph: `reference`, in torch, and `native`."""
