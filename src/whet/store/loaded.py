"""Which files of a model folder a loader reads, by name. Torch-free.

The names are those of transformers, sentence-transformers and peft; what else lies in a folder
(states of trainers, results, notes, scripts) is neither read nor judged nor copied.
"""

from collections.abc import Iterable
from pathlib import Path

INDEX = "model.safetensors.index.json"
CONFIGS = frozenset(  # may name code that a loader would import
    {
        "config.json", "generation_config.json", "tokenizer_config.json", "processor_config.json",
        "preprocessor_config.json", "video_preprocessor_config.json", "image_processor_config.json",
        "feature_extractor_config.json", "adapter_config.json",
    }
)  # fmt: skip
TABLES = frozenset(  # vocabularies, templates and lists; no key of them names code
    {
        "tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
        "chat_template.json", "bpe_codes.json", "normalizer.json", "modules.json",
        "config_sentence_transformers.json", "sentence_bert_config.json", "sentence_xlnet_config.json",
    }
)  # fmt: skip
SUFFIXES = (".jinja", ".model", ".txt", ".tiktoken", ".spm", ".vocab")
FOLDERS = frozenset({"additional_chat_templates"})
WRITTEN_BY_WHET = frozenset(
    {"manifest.json", "records.jsonl", "run.jsonl", "recipe.yaml", "report.html", "README.md"}
)


def is_side_file(name: str) -> bool:
    """Return whether a file is neither weights nor code, and a loader may need it."""
    path = Path(name)
    if str(path.parent) in FOLDERS:
        return path.suffix == ".jinja"
    return path.parent == Path() and (name in CONFIGS or name in TABLES or path.suffix in SUFFIXES)


def files_left_out(files: Iterable[str], weights: Iterable[str]) -> tuple[str, ...]:
    """Return the files of a source that no result holds: no loader reads them."""
    known = {*weights, INDEX, *WRITTEN_BY_WHET}
    return tuple(n for n in sorted(files) if n not in known and not is_side_file(n))
