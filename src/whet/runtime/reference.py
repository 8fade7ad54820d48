"""The reference executor: a model in plain torch, which every format and family has."""

from collections.abc import Mapping
from math import prod

import torch

from whet.base.machine import free_memory
from whet.formats.keeping import Keeping, coded_by_page
from whet.formats.spec import Float as Plain
from whet.formats.weight import Weight
from whet.model import decoder
from whet.model.cache import Cache
from whet.model.decoder import Model
from whet.model.linear import Linear
from whet.runtime.executor import Ids, Logits
from whet.store.checkpoint import Checkpoint
from whet.store.folder import Folder


class Reference:
    """A decoder of `whet.model`, in memory."""

    name = "reference"
    density = 1.0

    def __init__(
        self, model: Model, cache: Keeping | None = None, *, unpacked: bool = False
    ) -> None:
        self.model, self.unpacked = model, unpacked
        self.cache: Keeping = cache or model.arch.keeping or "f32"

    @property
    def vocab(self) -> int:
        """Number of logits."""
        return self.model.arch.vocab

    @property
    def context(self) -> int:
        """The longest sequence [token]."""
        return self.model.arch.context

    @property
    def threads(self) -> int:
        """How many threads compute."""
        return torch.get_num_threads()

    @property
    def notes(self) -> Mapping[str, str]:
        """When weights are decoded, and what keys and values are kept in."""
        weights = "decoded at load" if self.unpacked else "decoded at use"
        return {"weights": weights, "cache": self.cache}

    def new_cache(self) -> Cache:
        """Return the memory of one sequence, empty."""
        return self.model.new_cache(self.cache)

    @property
    def remembers(self) -> str | None:
        """Why a sequence cannot be shortened: what was given up is not there any more."""
        if coded_by_page(self.cache):
            return f"keys and values in {self.cache} are coded page by page"
        cache = self.new_cache()
        if cache.bound is not None:
            return "its positions are turned anew beyond some length"
        if any(layer.window is not None for layer in cache):
            return "the reference gives up what has left a sliding window"
        return None

    def forget(self, cache: Cache, length: int) -> None:
        """Keep the first `length` tokens of a sequence alone."""
        cache.shorten(length)

    @torch.inference_mode()
    def step(self, tokens: Ids, cache: Cache, wanted: int = 1) -> Logits:
        """Return the logits after the last `wanted` of the tokens."""
        hidden = self.model.hidden(torch.from_numpy(tokens)[None], cache)
        return self.model.head(hidden[0, len(tokens) - wanted :]).numpy()


def load(
    folder: Folder,
    *,
    cache: Keeping | None = None,
    mapped: bool = True,
    unpacked: bool | None = False,
) -> Reference:
    """Return a folder in memory.

    `cache`: what keys and values are kept in; None: what the folder says, or float32. `mapped`
    reads weights through a memory map. `unpacked` decodes every weight once to float32, which
    writes tokens faster and takes four bytes a weight; None does so where that is at most half of
    the free memory.
    Law: logits do not depend on `mapped` or `unpacked`.
    """
    model = decoder.load(Checkpoint(folder, mapped=mapped)).eval()
    if unpacked is None:
        unpacked = 4 * sum(prod(one.shape) for one in _linears(model)) <= free_memory() // 2
    if unpacked:
        _unpack(model)
    return Reference(model, cache, unpacked=unpacked)


def _unpack(model: Model) -> None:
    """Decode every linear weight to float32 for good."""
    for linear in _linears(model):
        linear.replace(Weight(Plain("F32"), {"value": linear.weight.dense()}, linear.shape))


def _linears(model: Model) -> list[Linear]:
    """Return every linear once, also where embedding and head share one."""
    return [module for module in model.modules() if isinstance(module, Linear)]
