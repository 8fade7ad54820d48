"""Text to token ids and back, with the model's own tokenizer file. Torch-free."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from whet.base.errors import FolderError, RecipeError, UnsupportedError
from whet.store.folder import gguf_file
from whet.store.json_file import read_json
from whet.store.regular import contained, regular
from whet.store.special_tokens import SpecialTokens, special_tokens
from whet.store.template import Message, render

FILE = "tokenizer.json"
SETTINGS = (
    "tokenizer_config.json", "config.json", "generation_config.json", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
LIMIT = 256 << 20  # [byte]
LONGEST = 1 << 21  # text encoded at once [character]
REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are not (yet) a character
HELD = 16  # tokens after which a stream no longer waits for a character to be completed


class Tokenizer:
    """The tokenizer of a folder.

    `bos_id` is None where the model has no token for the beginning; `eos_ids` are all ids that end
    a text, as the generation settings, the configuration and the tokenizer say.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = gguf_file(folder)
        files = None if file is None else _of_gguf(file)
        self._tokenizer = (
            _load(folder) if files is None else _parsed(json.dumps(files[FILE]).encode(), folder)
        )
        self._settings, self._model, self._generation, tokens_map, added = (
            _optional(folder, name) if files is None else files.get(name, {}) for name in SETTINGS
        )
        self._special = special_tokens(self._settings, tokens_map, added)
        _complete(self._tokenizer, self._special)
        self.vocab_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids of a text; `special` adds the tokens the model expects around it.

        Long texts are cut before spaces, so that memory does not grow with them.
        """
        _refuse_halves(text)
        found: list[int] = []
        for piece in [text] if special else _pieces(text):
            found += self._tokenizer.encode(piece, add_special_tokens=special).ids
        return found

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Return the text of ids; `special` shows special tokens too."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=not special)

    def token(self, index: int) -> str:
        """Return the name of one token, e.g. `<|endoftext|>`, or its id if it has none."""
        return self._tokenizer.id_to_token(index) or str(index)

    def stream(self, after: Sequence[int] = ()) -> "Stream":
        """Return a decoder for ids that come one by one; `after` are the ids just before them."""
        return Stream(self, after)

    @property
    def special_tokens(self) -> Mapping[str, str]:
        """The texts of special tokens by name: `bos_token`, `eos_token` and so on."""
        return self._special.named

    @cached_property
    def bos_id(self) -> int | None:
        """The id with which texts begin."""
        return self._id("bos")

    @cached_property
    def eos_ids(self) -> tuple[int, ...]:
        """All ids that end a text, ascending."""
        found = {
            *_ids(self._generation.get("eos_token_id")),
            *_ids(self._model.get("eos_token_id")),
        }
        own = self._tokenizer.token_to_id(self.special_tokens.get("eos_token", ""))
        return tuple(sorted(found | ({own} if own is not None else set())))

    @property
    def adds_bos(self) -> bool:
        """Whether the model expects `bos_id` before a text."""
        return self.bos_id is not None and self.encode("a", special=True)[:1] == [self.bos_id]

    @cached_property
    def template(self) -> str | None:
        """The chat template, or None."""
        path = self.folder / "chat_template.jinja"
        if path.exists():
            regular(contained(self.folder, path.name, str(self.folder)))
            try:
                return path.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise FolderError(
                    f"{path} is not UTF-8 text ({error.reason})", "download the file again"
                ) from None
        return _named(self._settings.get("chat_template"))

    def chat(self, messages: Sequence[Message], *, generate: bool = True, **values: object) -> str:
        """Return a conversation as the model reads it, rendered by its own template.

        `generate` ends it where the model's answer begins; `values` are what the template may read
        besides, e.g. `tools` or `documents`.
        """
        if self.template is None:
            raise UnsupportedError(
                f"{self.folder} has no chat template", "use a chat model, or plain text"
            )
        given: dict[str, object] = {
            "tools": None,
            "documents": None,
            **values,
            "messages": [dict(message) for message in messages],
            "add_generation_prompt": generate,
        }
        return render(self.template, {**self.special_tokens, **given})

    def chat_ids(self, messages: Sequence[Message], *, generate: bool = True) -> list[int]:
        """Return the ids of a conversation; the template itself writes all special tokens."""
        return self.encode(self.chat(messages, generate=generate))

    def _id(self, name: str) -> int | None:
        own = self._tokenizer.token_to_id(self.special_tokens.get(f"{name}_token", ""))
        said = (
            *_ids(self._generation.get(f"{name}_token_id")),
            *_ids(self._model.get(f"{name}_token_id")),
        )
        return own if own is not None else next(iter(said), None)


def _complete(tokenizer: tokenizers.Tokenizer, special: SpecialTokens) -> None:
    """Add the tokens that the folder's other files name and `tokenizer.json` lacks."""
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokenizer.add_tokens([token for token in special.added if token.content not in known])
    named = dict.fromkeys(special.named.values())
    inside = [text for text in named if text and tokenizer.token_to_id(text) is not None]
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in inside if t not in known]
    )


class Stream:
    """Decodes ids as they come.

    Law: the pieces, joined, are the decoded text where that is valid Unicode.
    Law: no piece ends in half a character.
    """

    def __init__(self, tokenizer: Tokenizer, after: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = list(after)[-8:]
        self._shown = len(self._ids)  # ids before this one have been shown
        self._context = 0  # decoding starts here, so that spaces between words are kept

    def push(self, index: int) -> str:
        """Take one id; return the text that is now complete, perhaps none."""
        self._ids.append(index)
        text = self._pending()
        if text.endswith(REPLACEMENT) and len(self._ids) - self._shown < HELD:
            return ""
        return self._show(text)

    def finish(self) -> str:
        """Return what is left, even if its last character is incomplete."""
        return self._show(self._pending())

    def _pending(self) -> str:
        """Return the text of the ids not yet shown."""
        before = self._tokenizer.decode(self._ids[self._context : self._shown])
        return self._tokenizer.decode(self._ids[self._context :])[len(before) :]

    def _show(self, text: str) -> str:
        if text:
            self._ids = self._ids[self._shown :]
            self._context, self._shown = 0, len(self._ids)
        return text


def _of_gguf(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return the files that a GGUF file stands for."""
    from whet.store.gguf.tokenizer import files_of

    return files_of(path)


def _parsed(content: bytes, path: Path) -> tokenizers.Tokenizer:
    """Return the tokenizer that a `tokenizer.json` describes; `path` is where it comes from."""
    try:
        return tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # noqa: BLE001 (the tokenizers library raises bare Exception)
        raise FolderError(
            f"{path} is not a tokenizer: {str(error)[:160]}", "download the file again"
        ) from None


def _load(folder: Path) -> tokenizers.Tokenizer:
    if not (folder / FILE).exists():
        raise UnsupportedError(
            f"{folder} has no {FILE}",
            "write one: transformers AutoTokenizer.from_pretrained(A).save_pretrained(A)",
        )
    path = contained(folder, FILE, str(folder))
    if regular(path) > LIMIT:
        raise FolderError(f"{path} is larger than {LIMIT} bytes", "check the file")
    loaded = _parsed(path.read_bytes(), path)
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def _refuse_halves(text: str) -> None:
    """Raise if a text holds half a character, as bytes that are not UTF-8 leave it behind."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RecipeError(
            f"character {error.start + 1} of the text is none (an unpaired surrogate)",
            "Give the text as UTF-8.",
        ) from None


def _pieces(text: str, longest: int = LONGEST) -> Iterator[str]:
    """Yield a text in pieces of at most `longest` characters, cut before a space if there is one."""
    start = 0
    while len(text) - start > longest:
        space = text.rfind(" ", start + 1, start + longest)
        stop = space if space > 0 else start + longest
        yield text[start:stop]
        start = stop
    yield text[start:]


def _optional(folder: Path, name: str) -> Mapping[str, Any]:
    """Return a JSON file of the folder, or nothing where there is none."""
    if not (folder / name).exists():
        return {}
    return read_json(contained(folder, name, str(folder)))


def _ids(value: object) -> tuple[int, ...]:
    """Return the ids in a setting that is an id, a list of them or nothing."""
    values = value if isinstance(value, list) else [value]
    return tuple(item for item in values if type(item) is int)


def _named(template: object) -> str | None:
    """Return the default one of the templates in a setting."""
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default", next(iter(named.values()), None))
    return template if isinstance(template, str) else None
