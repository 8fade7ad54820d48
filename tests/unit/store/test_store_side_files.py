"""Side files: everything a loader needs, nothing that runs."""

import json
import shutil
from pathlib import Path

from transformers import AutoTokenizer, GenerationConfig

from whet.store.folder import Folder
from whet.store.resolve import demo
from whet.store.side_files import copy_side_files

NEEDED = [
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "merges.txt", "vocab.json", "special_tokens_map.json", "chat_template.jinja",
    "tokenizer.model", "added_tokens.json", "additional_chat_templates/tools.jinja",
]  # fmt: skip
LEFT = [
    "modeling_x.py", "tokenizer.py", "pytorch_model.bin", "training_args.bin", "optimizer.pt",
    "model.onnx", "x.gguf", "run.sh", "lib.so", "manifest.json", "README.md", "x.pkl",
]  # fmt: skip


def test_what_is_copied(tmp_path: Path):
    source, into = tmp_path / "source", tmp_path / "into"
    shutil.copytree(demo(), source)
    (source / "additional_chat_templates").mkdir()
    (source / "sub").mkdir()
    for name in [*NEEDED, *LEFT, "sub/deep.json"]:
        if not (source / name).exists():
            (source / name).write_text(json.dumps({"of": name}) if name.endswith("json") else name)
    into.mkdir()
    copied = copy_side_files(Folder(source), into)
    assert set(copied) == set(NEEDED)
    there = {p.relative_to(into).as_posix() for p in into.rglob("*") if p.is_file()}
    assert there == set(NEEDED)
    for name in NEEDED:
        assert (into / name).read_bytes() == (source / name).read_bytes()


def test_loaders_find_what_they_need(tmp_path: Path):
    copy_side_files(Folder(demo()), tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).encode("Once") == AutoTokenizer.from_pretrained(
        demo()
    ).encode("Once")
    assert GenerationConfig.from_pretrained(tmp_path).top_p == 0.95
