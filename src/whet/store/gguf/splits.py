r"""How texts are split before pairs are joined, by the name that a file has for it. Torch-free.

Each way is a few patterns: what the first matches is cut out, then what the next matches in what is
left of each piece, and so on. Patterns are those of the original tokenizers, as llama.cpp's
`llama-vocab.cpp` quotes them, of which it uses variants that match the same. GPT2 is the pattern
that a byte-level tokenizer has by itself.
"""

from collections.abc import Mapping

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT, THREE_DIGITS = r"\p{N}", r"\p{N}{1,3}"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"  # the endings of contractions
_WORDS = _SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*" + _SPACES
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ASCII_PUNCTUATION = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"


def _cased(ending: str, digits: str) -> str:
    """Return words cut where small letters turn to capitals."""
    first = r"[^\r\n\p{L}\p{N}]?"
    words = f"{first}{_UPPER}*{_LOWER}+{ending}|{first}{_UPPER}+{_LOWER}*{ending}"
    return words + f"|{digits}" + r"| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _SPACES


LLAMA3 = _WORDS + "|" + THREE_DIGITS + _REST
QWEN2 = _WORDS + "|" + DIGIT + _REST
_CHINESE_JAPANESE = "[一-龥\u3040-\u309f\u30a0-\u30ff]+"
_DEEPSEEK3 = (
    THREE_DIGITS,
    _CHINESE_JAPANESE,
    _ASCII_PUNCTUATION
    + r"[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    + _SPACES,
)
_EXCLUDED = " ?[^(\\s|.,!?…。\uff0c、।\u06d4،)]+"
_FALCON = r"[\p{P}\$\+<=>\^~\|`]+"
_BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
_SEED = _WORDS + r"|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+" + _SPACES
_EXAONE_MOE = (
    _SHORT + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
_QWEN35 = (
    _SHORT + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + _SPACES
)

SPLITS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("gpt-2", "phi-2", "olmo", "mpt", "jais", "trillion", "granite-docling", "exaone4",
         "gigachat", "a.x-4.0", "mellum", "roberta-bpe", "modern-bert", "jina-es", "jina-de",
         "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code"), (GPT2,),
    ),
    **dict.fromkeys(
        ("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b",
         "mellum2"), (DIGIT, GPT2),
    ),
    **dict.fromkeys(
        ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
         "jina-v5-nano", "dbrx", "smaug-bpe", "glm4", "chatglm-bpe"), (LLAMA3,),
    ),
    **dict.fromkeys(
        ("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "stablelm2", "megrez", "hunyuan",
         "solar-open", "grok-2"), (QWEN2,),
    ),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), _DEEPSEEK3),
    **dict.fromkeys(("bloom", "poro-chat", "gpt3-finnish"), (_EXCLUDED,)),
    **dict.fromkeys(
        ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"),
        (_cased(_SHORT + "?", THREE_DIGITS),),
    ),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), (_BAILING,)),
    "tekken": (_cased("", DIGIT),),
    "qwen35": (_QWEN35,),
    "viking": (_EXCLUDED, DIGIT),
    "seed-coder": (_SEED,),
    "exaone-moe": (_EXAONE_MOE,),
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", DIGIT),
    "falcon": (_FALCON, GPT2, "[0-9][0-9][0-9]"),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
}  # fmt: skip
WHOLE = frozenset(
    ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
     "jina-v5-nano", "tekken"),
)  # a word that is a token needs no merges; and texts begin with the token for it  # fmt: skip
COMPOSED = frozenset(("qwen2", "deepseek-r1-qwen", "qwen35", "megrez"))  # normalized to NFC first
