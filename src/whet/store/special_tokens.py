"""The special tokens of a folder, as transformers' AutoTokenizer resolves them. Torch-free.

In order: `tokenizer_config.json`; `special_tokens_map.json` over it, unless the former has an
`added_tokens_decoder`; `added_tokens.json`; what the tokenizer's class has where none is named.
Source: transformers 5.24, `PreTrainedTokenizerBase._from_pretrained`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tokenizers import AddedToken

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The texts of special tokens by name, and the tokens that `tokenizer.json` may lack."""

    named: Mapping[str, str]
    added: tuple[AddedToken, ...]


def special_tokens(
    settings: Mapping[str, Any],
    tokens_map: Mapping[str, Any] = NONE,
    added: Mapping[str, Any] = NONE,
) -> SpecialTokens:
    """Resolve the contents of the three files; a missing file is an empty mapping."""
    decoder = settings.get("added_tokens_decoder")
    if isinstance(decoder, Mapping):
        listed = sorted(
            ((int(index), token) for index, token in decoder.items() if index.isdigit())
        )
        return SpecialTokens(
            _named(settings),
            tuple(_token(token) for _, token in listed if isinstance(token, Mapping)),
        )
    named = _named({**settings, **tokens_map})
    special = set(named.values())
    listed = sorted((index, text) for text, index in added.items() if type(index) is int)
    tokens = tuple(
        AddedToken(text, special=text in special, normalized=text not in special)
        for _, text in listed
    )
    return SpecialTokens(named, tokens)


def _named(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of the settings whose name ends in `_token`; they may be objects."""
    extra = settings.get("extra_special_tokens")
    every = {**settings, **(extra if isinstance(extra, Mapping) else {})}
    found: dict[str, str] = {}
    for name, value in every.items():
        text = value.get("content") if isinstance(value, Mapping) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found


def _token(found: Mapping[str, Any]) -> AddedToken:
    flags = {name: found[name] for name in FLAGS if isinstance(found.get(name), bool)}
    return AddedToken(str(found.get("content", "")), **flags)
