"""What becomes of every tensor of a folder: the model uses it, it is copied, or it is left out.

`store` says what a folder holds, a family which tensors it claims; here the rest is sorted. Needs no
torch.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from whet.model.architecture import Architecture
from whet.model.config import Config
from whet.model.family import Family

Use = Literal["copied", "left out"]

PREDICTION_KEYS = (  # of config.json: how many blocks predict further tokens
    "num_nextn_predict_layers",
    "mtp_num_hidden_layers",
    "num_mtp_layers",
    "mtp_num_layers",
    "num_mtp_modules",
)
PART_KEYS = ("vision_config", "audio_config")  # of config.json: other parts of a model
_PREDICTION = re.compile(r"(model\.)?(mtp|nextn)(_\w+)?\.")
_ADAPTER = re.compile(r"(^|\.)(lora_\w+|base_layer|modules_to_save)(\.|$)")
_BUFFER = ("inv_freq", "position_ids", "masked_bias")

FURTHER = "predicts further tokens, which whet does not run"
OUTSIDE = "belongs to no part of the model that whet runs"
ADAPTER = "is a leftover of an adapter, which no loader of this model reads"
BUFFER = "is a buffer that loaders compute anew"
TIED = "equals the embedding, to which config.json ties it"
UNREAD = "is not called for by config.json; transformers does not read it either"


@dataclass(frozen=True, slots=True)
class Account:
    """Every tensor of a folder, once: used, copied as it is, or left out; the latter two with why.

    `deeper` are tensors of blocks beyond the last one that config.json tells of.
    Law: the three are disjoint, and together they are what the folder holds.
    """

    used: frozenset[str]
    copied: Mapping[str, str] = field(default_factory=dict[str, str])
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    deeper: Sequence[str] = ()

    @property
    def unused(self) -> Iterator[tuple[str, Use, str]]:
        """Yield (tensor, what becomes of it, why) for everything that the model does not use."""
        for name, why in self.copied.items():
            yield name, "copied", why
        for name, why in self.left_out.items():
            yield name, "left out", why

    @property
    def alone(self) -> "Account":
        """Return the account where a step changes the model: what is not the model is left out."""
        changed = {
            name: f"{why}, and a step changes the model" for name, why in self.copied.items()
        }
        return replace(self, copied={}, left_out=changed | dict(self.left_out))

    @property
    def copied_modules(self) -> tuple[str, ...]:
        """Return the modules whose weights are copied: loaders are told that they are plain."""
        names = (name for name in self.copied if name.endswith(".weight"))
        return tuple(name.removesuffix(".weight") for name in names)


def account(family: Family, arch: Architecture, config: Config, names: Collection[str]) -> Account:
    """Sort the tensors of a folder.

    In a folder that is quantized every tensor of a linear counts as used: its codes, scales and
    whatever else its dialect has.
    """
    claimed = _claimed(family, arch, config, names)
    copied: dict[str, str] = {}
    left: dict[str, str] = {}
    deeper: list[str] = []
    for name in names:
        if name in claimed:
            continue
        use, why = _sorted(family, arch, config, name)
        if why == UNREAD and _depth(family, arch, name) >= arch.layers:
            deeper.append(name)
        (copied if use == "copied" else left)[name] = why
    return Account(frozenset(claimed), copied, left, tuple(deeper))


def alone(config: Config) -> Config:
    """Return a config that promises nothing but the model itself."""
    return {k: v for k, v in config.items() if k not in (*PREDICTION_KEYS, *PART_KEYS)}


def grouped(account: Account) -> tuple[tuple[str, Use, str], ...]:
    """Return what is not used, with names alike but for their numbers in one line."""
    counts: dict[tuple[str, Use, str], int] = {}
    for name, use, why in account.unused:
        key = (re.sub(r"(?<=\.)\d+(?=\.)", "*", name), use, why)
        counts[key] = counts.get(key, 0) + 1
    return tuple(
        (f"{name} ({count})" if count > 1 else name, use, why)
        for (name, use, why), count in counts.items()
    )


def _claimed(
    family: Family, arch: Architecture, config: Config, names: Collection[str]
) -> set[str]:
    """Return the tensors that the model reads."""
    found = family.tensors(arch).keys() & set(names)
    if not config.get("quantization_config"):
        return found
    modules = {site.module for site in family.sites(arch) if site.tied is None}
    if arch.tied:  # a head that shares the embedding's codes repeats their scale
        found |= {f"{family.module(arch, 'head')}.weight_scale"} & set(names)
    return found | {name for name in names if name.rpartition(".")[0] in modules}


def _sorted(family: Family, arch: Architecture, config: Config, name: str) -> tuple[Use, str]:
    """Return what becomes of a tensor that the model does not read, and why."""
    if _ADAPTER.search(name):
        return "left out", ADAPTER
    if name.endswith((*family.ignored, *_BUFFER)):
        return "left out", BUFFER
    if arch.tied and name == f"{family.module(arch, 'head')}.weight":
        return "left out", TIED
    beyond = _depth(family, arch, name) - arch.layers
    if 0 <= beyond < prediction_layers(config) or _PREDICTION.match(name):
        return "copied", FURTHER
    if family.is_inside(arch, name):
        return "left out", UNREAD
    return "copied", OUTSIDE


def prediction_layers(config: Config) -> int:
    """Return how many blocks after the last one predict further tokens, as config.json says."""
    counts = (config.get(key) for key in PREDICTION_KEYS)
    return max((count for count in counts if type(count) is int), default=0)


def _depth(family: Family, arch: Architecture, name: str) -> int:
    """Return the number of the block that a tensor lies in; -1 outside the blocks."""
    blocks = family.blocks(arch)
    number = name.removeprefix(blocks).partition(".")[0] if name.startswith(blocks) else ""
    return int(number) if number.isdecimal() else -1
