"""Rows of a data set as text: a column, or a conversation by the model's chat template. Torch-free."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from whet.base.errors import FolderError, WhetError

Chat = Callable[..., str]  # (messages, **values that the template may read) -> text
OTHER = "Rename the column, or give other text."
COLUMNS = "`text`, `messages`, `conversations`, or `prompt` and `completion`"
CONVERSATIONS = ("messages", "conversations")
SHAREGPT_ROLES = {  # names of speakers in data of ShareGPT's form -> roles of chat templates
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant",
    "assistant": "assistant", "model": "assistant", "bing": "assistant", "bard": "assistant",
    "system": "system", "tool": "tool", "observation": "tool", "function_response": "tool",
}  # fmt: skip
TEMPLATE_VALUES = ("tools", "documents")  # columns that chat templates read beside the messages


@dataclass(frozen=True, slots=True)
class Rows:
    """How the rows of a source become text: one column, or by the column names they have."""

    chat: Chat
    column: str = ""

    def text(self, row: object, where: str) -> str:
        """Return the text of one row; `where` names it in errors."""
        if not isinstance(row, dict):
            raise bad(f"{where}: a JSON object was expected, found {kind(row)}")
        fields = cast("dict[str, Any]", row)
        if self.column:
            return _words(fields, self.column, where)
        name = conversation_column(fields)
        if name is not None and fields.get("text") is None:
            return self._conversation(fields, name, where)
        if "text" in fields:
            return _words(fields, "text", where)
        if "prompt" in fields and "completion" in fields:
            return self._completed(fields, where)
        found = ", ".join(sorted(fields)[:8]) or "none"
        raise bad(f"{where}: expected {COLUMNS}; found columns: {found}", OTHER)

    def _completed(self, fields: Mapping[str, Any], where: str) -> str:
        """Return a prompt and its completion, both texts or both lists of messages."""
        both = fields["prompt"], fields["completion"]
        if all(isinstance(one, list) for one in both):
            joined = {**fields, "messages": [*both[0], *both[1]]}
            return self._conversation(joined, "messages", where)
        return _words(fields, "prompt", where) + _words(fields, "completion", where)

    def _conversation(self, fields: Mapping[str, Any], name: str, where: str) -> str:
        messages = _messages(fields[name], name, where)
        values = {key: _listed(fields[key], key, where) for key in TEMPLATE_VALUES if key in fields}
        try:
            return self.chat(messages, **values)
        except WhetError as error:
            raise type(error)(f"{where}: {error.message}", _mend(error)) from error


def conversation_column(fields: Mapping[str, Any]) -> str | None:
    """Return the column that holds a row's conversation, or None."""
    return next((name for name in CONVERSATIONS if fields.get(name) is not None), None)


def _mend(error: WhetError) -> str:
    """Return what to do about a conversation that cannot be rendered."""
    if isinstance(error, FolderError):
        return "Mend or remove that row: roles must often alternate, and few models take `system`."
    return error.hint


def _messages(found: object, name: str, where: str) -> list[dict[str, Any]]:
    """Return messages with role and content, also where they are in ShareGPT's form."""
    good = isinstance(found, list) and found
    if not good or not all(isinstance(one, dict) for one in cast("list[Any]", found)):
        raise bad(f"{where}: `{name}` must be a list of objects with role and content")
    return [_message(one, where) for one in cast("list[dict[str, Any]]", found)]


def _message(message: dict[str, Any], where: str) -> dict[str, Any]:
    if "role" in message:
        return message
    speaker = message.get("from")
    role = SHAREGPT_ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None or "value" not in message:
        known = ", ".join(sorted(SHAREGPT_ROLES))
        raise bad(
            f"{where}: a message has neither `role` nor a known `from` with `value`; "
            f"found {json.dumps(message)[:80]}; known: {known}"
        )
    return {"role": role, "content": message["value"]}


def _listed(value: object, name: str, where: str) -> list[Any] | None:
    """Return a list that a template reads; data sets often hold it as JSON text."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            raise bad(f"{where}: `{name}` is text, but not JSON ({error})") from error
    if value is None or value == "":
        return None
    if not isinstance(value, list):
        raise bad(f"{where}: `{name}` must be a list, found {kind(value)}")
    return cast("list[Any]", value) or None


def _words(fields: Mapping[str, Any], column: str, where: str) -> str:
    if column not in fields:
        found = ", ".join(sorted(fields)[:8]) or "none"
        raise bad(f"{where}: no column {column!r}; found: {found}", OTHER)
    if not isinstance(fields[column], str):
        raise bad(f"{where}: {column!r} must be text, found {kind(fields[column])}")
    if any("\ud800" <= char <= "\udfff" for char in fields[column]):
        raise bad(f"{where}: {column!r} has half a character (an unpaired surrogate)")
    return fields[column]


def bad(fault: str, hint: str = "Mend or remove that row.") -> FolderError:
    """Return the error of a row that cannot be read."""
    return FolderError(fault, hint)


def kind(value: object) -> str:
    """Return what a value of JSON is."""
    return "null" if value is None else type(value).__name__
