"""What a model folder may not contain, because another program would run it. Torch-free."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from whet.base.errors import UnsafeError
from whet.store.json_file import read_json
from whet.store.loaded import CONFIGS
from whet.store.regular import contained
from whet.store.tokenizer_settings import CODE, SETTINGS, TOKENIZER

# Keys by which a configuration makes a loader import or download code (CVE-2026-4372 and its kin).
CODE_KEYS = frozenset(
    {"auto_map", "model_file", "custom_pipelines", "kernel_config", "kernels", "trust_remote_code"}
)
CODE_PREFIXES = ("_attn_implementation", "_experts_implementation", "attn_implementation")
ATTENTION = frozenset({"eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"})
NO_CODE = "whet runs no code of models; use a model that transformers supports itself"
NO_TOKENIZER = (
    "whet runs no code of models, and the folder has no tokenizer.json, which needs none: write one where "
    "you trust the code, with transformers AutoTokenizer.from_pretrained(A).save_pretrained(A)"
)
PICKLES = frozenset(
    {
        ".bin",
        ".pt",
        ".pth",
        ".ckpt",
        ".pkl",
        ".pickle",
        ".npy",
        ".npz",
        ".joblib",
        ".h5",
        ".msgpack",
    }
)


def refuse_code(folder: Path, files: Iterable[str], *, native: bool = False) -> None:
    """Raise UnsafeError if a configuration of the folder asks for code to be run.

    The code that the `auto_map` of a `native` model names is imported by nobody: whet and
    transformers have their own, and a tokenizer that lies as `tokenizer.json` needs none. Only
    configurations that a loader reads are judged. Python files that none of them mentions are
    harmless: they are neither read nor copied.
    """
    names = tuple(files)
    needless = (
        {"config.json", *({SETTINGS} if TOKENIZER in names else ())} if native else set[str]()
    )
    for name in names:
        if name in CONFIGS:
            value = read_json(contained(folder, name, str(folder)))
            if name in needless:
                value.pop(CODE, None)
            for place, why in code_requests(value):
                raise UnsafeError(
                    f"{folder / name} asks for code of the model to be run: {place} ({why})",
                    NO_TOKENIZER if native and name == SETTINGS else NO_CODE,
                )


def code_requests(value: object, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield (place, reason) of everything in a configuration by which a loader would run code."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            here = f"{place}.{key}" if place else str(key)
            reason = _reason(str(key), item)
            if reason:
                yield here, reason
            else:
                yield from code_requests(item, here)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from code_requests(item, f"{place}[{index}]")
    elif isinstance(value, str) and value.endswith(".py"):
        yield place, f"names {value[:80]}"


def _reason(key: str, value: object) -> str | None:
    """Say why a key is refused, or None."""
    if value is None or isinstance(value, bool | int | float) or value in ("", [], {}):
        return None
    if key in CODE_KEYS:
        return "loads code"
    if key.startswith(CODE_PREFIXES):
        named = value.values() if isinstance(value, Mapping) else [value]
        known = all(one is None or (isinstance(one, str) and one in ATTENTION) for one in named)
        return None if known else "loads a kernel"
    return None


def refuse_pickles(folder: Path, files: Iterable[str]) -> None:
    """Raise UnsafeError, naming the files, if the folder's weights exist only as pickles."""
    found = sorted(name for name in files if Path(name).suffix.lower() in PICKLES)
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise UnsafeError(
            f"{folder} has its weights only as {found[0]}{more}, a format that can run code",
            "convert it once, where you trust it: transformers "
            "AutoModelForCausalLM.from_pretrained(A).save_pretrained(B)",
        )
