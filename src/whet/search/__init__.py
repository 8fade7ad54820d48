"""State limits, get the best model that meets them: a joint search, measured on this machine."""
