"""The tokenizer of a GGUF file as the files of its original: `tokenizer.json` and its settings.

Two kinds are known: byte-level pairs with merges (gpt2), for the ways of splitting text in `splits`,
and SentencePiece's pieces with scores (llama), whose merges follow from the scores as transformers
derives them (`convert_slow_tokenizer.py`). Torch-free.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whet.base.errors import UnsupportedError
from whet.store.gguf.header import damaged, read_header
from whet.store.gguf.model import parts
from whet.store.gguf.splits import COMPOSED, GPT2, SPLITS, WHOLE

Json = dict[str, Any]
CONTROL, USER, UNUSED = 3, 4, 5  # types of tokens
ENDS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>",
    "_<EOT>", "<|end_of_text|>", "<end_of_utterance>", "</s>", "<eos>", "<|return|>", "<|call|>",
)  # control tokens with which llama.cpp ends a text, by their names  # fmt: skip


class Vocabulary:
    """Tokens, their types, and what the file says of them."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path, self.values = path, values
        self.tokens: list[str] = [
            token or f"[EMPTY_{index}]" for index, token in enumerate(self._list("tokens", str))
        ]
        if len(set(self.tokens)) != len(self.tokens):
            raise damaged(path, "has a token twice")
        kinds = self.get("token_type")
        self.kinds: list[int] = self._list("token_type", int) if kinds else [1] * len(self.tokens)
        if not self.tokens or len(self.kinds) != len(self.tokens):
            raise damaged(path, f"has {len(self.kinds)} types of {len(self.tokens)} tokens")

    def get(self, name: str) -> Any:  # noqa: ANN401 (as the file says)
        """Return a value, or None."""
        return self.values.get(f"tokenizer.ggml.{name}")

    def _list(self, name: str, *kinds: type) -> list[Any]:
        found = self.get(name)
        if not isinstance(found, list) or not all(type(item) in kinds for item in found):
            raise damaged(self.path, f"has no list tokenizer.ggml.{name}")
        return found

    def scores(self) -> list[float]:
        """Return how likely each piece is."""
        found = [float(score) for score in self._list("scores", float, int)]
        if len(found) != len(self.tokens):
            raise damaged(self.path, f"has {len(found)} scores of {len(self.tokens)} tokens")
        return found

    def merges(self) -> list[list[str]]:
        """Return the pairs that are joined, in order."""
        merges: list[str] = self._list("merges", str)
        pairs = [
            [merge[:1] + first, second]
            for merge in merges
            for first, _, second in [merge[1:].partition(" ")]
        ]
        known = set(self.tokens)
        for pair in pairs:
            if not known.issuperset((*pair, "".join(pair))):
                raise damaged(self.path, f"has a merge of no tokens: {' '.join(pair)[:40]!r}")
        return pairs

    def special(self, name: str) -> str | None:
        """Return the token that has a part, e.g. `bos`, or None."""
        index = self.get(f"{name}_token_id")
        if index is None:
            return None
        if type(index) is not int or not 0 <= index < len(self.tokens):
            raise damaged(self.path, f"has no token {index}, which is to be {name}")
        return self.tokens[index]

    def added(self) -> list[Json]:
        """Return the tokens that stand for themselves."""
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        return [
            {"id": index, "content": token, "special": kind == CONTROL} | plain
            for index, (token, kind) in enumerate(zip(self.tokens, self.kinds, strict=True))
            if kind in (CONTROL, USER) and token
        ]


def files_of(path: Path) -> dict[str, Json]:
    """Return the tokenizer's files of a model, by name."""
    first = parts(path)[0]
    return tokenizer_files(first, read_header(first).values)


def tokenizer_files(path: Path, values: Mapping[str, Any]) -> dict[str, Json]:
    """Return `tokenizer.json`, `tokenizer_config.json` and `generation_config.json`."""
    vocabulary = Vocabulary(path, values)
    kind = vocabulary.get("model")
    if kind == "gpt2":
        whole, begins = _pairs(vocabulary), vocabulary.get("pre") in WHOLE
    elif kind == "llama":
        whole, begins = _pieces(vocabulary), True
    else:
        raise UnsupportedError(
            f"{path} has a tokenizer of the kind {str(kind)[:40]!r}, expected gpt2 or llama",
            "give the original model",
        )
    around = [
        vocabulary.special(name) if _adds(vocabulary, name, default=default) else None
        for name, default in (("bos", begins), ("eos", False))
    ]
    if any(around):
        whole["post_processor"] = _around(vocabulary, *around)
    return {
        "tokenizer.json": whole,
        "tokenizer_config.json": _settings(vocabulary),
        "generation_config.json": _ends(vocabulary),
    }


def _adds(vocabulary: Vocabulary, name: str, *, default: bool) -> bool:
    """Say whether texts get a token at their beginning or at their end."""
    asked = vocabulary.get(f"add_{name}_token")
    return default if asked is None else asked is True


def _ends(vocabulary: Vocabulary) -> Json:
    """Return the ids with which texts begin and end, the end of a turn among them."""
    names = ("bos", "eos", "eot", "eom")
    found = {name: vocabulary.get(f"{name}_token_id") for name in names}
    known = {name: index for name, index in found.items() if type(index) is int}
    ends = {known[name] for name in names[1:] if name in known}
    ends |= {t["id"] for t in vocabulary.added() if t["special"] and t["content"] in ENDS}
    first = {"bos_token_id": known["bos"]} if "bos" in known else {}
    return first | ({"eos_token_id": sorted(ends)} if ends else {})


def _settings(vocabulary: Vocabulary) -> Json:
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    found: Json = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, key in names.items():
        token = vocabulary.special(key)
        found |= {f"{name}_token": token} if token is not None else {}
    template = vocabulary.values.get("tokenizer.chat_template")
    return found | ({"chat_template": template} if isinstance(template, str) else {})


def _whole(vocabulary: Vocabulary, model: Json, **parts: Json | None) -> Json:
    """Return a `tokenizer.json`."""
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    bare = {"version": "1.0", "truncation": None, "padding": None, "post_processor": None}
    settings = {"type": "BPE", "dropout": None, "continuing_subword_prefix": None}
    settings |= {"end_of_word_suffix": None, "vocab": ids}
    return {**bare, "added_tokens": vocabulary.added(), **parts, "model": settings | model}


def _pairs(vocabulary: Vocabulary) -> Json:
    """Return a tokenizer of byte-level pairs."""
    way = vocabulary.get("pre") or "default"
    if way not in SPLITS:
        raise UnsupportedError(
            f"{vocabulary.path} splits text in the way {str(way)[:40]!r}, "
            f"expected one of {', '.join(sorted(SPLITS))}",
            "give the original model",
        )
    model = {"merges": vocabulary.merges(), "ignore_merges": way in WHOLE}
    model |= {"unk_token": None, "fuse_unk": False, "byte_fallback": False}
    return _whole(
        vocabulary,
        model,
        normalizer={"type": "NFC"} if way in COMPOSED else None,
        pre_tokenizer=_split(SPLITS[way]),
        decoder=_BYTES | {"use_regex": True},
    )


_BYTES: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


def _split(patterns: tuple[str, ...]) -> Json:
    """Return the step that cuts a text by patterns, the first one first, and then shows its bytes."""
    own = patterns[-1] == GPT2
    steps: list[Json] = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in (patterns[:-1] if own else patterns)
    ]
    last = _BYTES | {"use_regex": own}
    return {"type": "Sequence", "pretokenizers": [*steps, last]} if steps else last


def _pieces(vocabulary: Vocabulary) -> Json:
    """Return a tokenizer of SentencePiece's pairs."""
    spaced = vocabulary.get("add_space_prefix") is not False
    mark: Json = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prefix: list[Json] = [{"type": "Prepend", "prepend": "▁"}] if spaced else []
    strip: list[Json] = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if spaced else []
    back: Json = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    parts: list[Json] = [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]
    unknown = vocabulary.special("unknown")
    model = {"merges": _derived(vocabulary), "ignore_merges": False, "unk_token": unknown}
    return _whole(
        vocabulary,
        model | {"fuse_unk": True, "byte_fallback": True},
        normalizer={"type": "Sequence", "normalizers": [*prefix, mark]},
        pre_tokenizer=None,
        decoder={"type": "Sequence", "decoders": parts},
    )


def _derived(vocabulary: Vocabulary) -> list[list[str]]:
    """Return the pairs that pieces are made of: the likeliest piece first."""
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    found: list[tuple[float, list[str]]] = []
    for token, score, kind in zip(
        vocabulary.tokens, vocabulary.scores(), vocabulary.kinds, strict=True
    ):
        if kind in (CONTROL, UNUSED) or len(token) > 256:
            continue
        cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
        pairs = [pair for pair in cuts if pair[0] in ids and pair[1] in ids]
        pairs.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        found += [(score, list(pair)) for pair in pairs]
    found.sort(key=lambda pair: -pair[0])
    return [pair for _, pair in found]


def _around(vocabulary: Vocabulary, first: str | None, last: str | None) -> Json:
    """Return the step that puts a token before each text, or after it."""

    def step(token: str, kind: int) -> Json:
        return {"SpecialToken": {"id": token, "type_id": kind}}

    def text(name: str, kind: int) -> list[Json]:
        body: Json = {"Sequence": {"id": name, "type_id": kind}}
        return [
            *([step(first, kind)] if first else []),
            body,
            *([step(last, kind)] if last else []),
        ]

    known = {token: vocabulary.tokens.index(token) for token in (first, last) if token}
    return {
        "type": "TemplateProcessing",
        "single": text("A", 0),
        "pair": text("A", 0) + text("B", 1),
        "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in known.items()},
    }
