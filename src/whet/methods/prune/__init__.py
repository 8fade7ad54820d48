"""Methods that choose which weights stay."""
