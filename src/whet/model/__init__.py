"""Decoders from named tensors: architectures, sites, blocks and the families that declare them."""
