"""A conversation that is remembered, and forgets its oldest turns where the context is full."""

from collections.abc import Sequence

from whet.base.errors import RecipeError
from whet.runtime.engine import MAX_TOKENS, Engine
from whet.runtime.reply import Reply
from whet.runtime.sample import Sampling

Message = dict[str, str]


class Conversation:
    """What was said so far.

    With a chat template the model gets the messages as its template writes them; without one
    (`templated` is False) it continues the text so far. `forgotten` counts the messages that no
    longer fit; the system message always stays.
    Law: whatever was said, the next prompt fits the context, or `say` raises and nothing changes.
    """

    def __init__(
        self,
        engine: Engine,
        system: str | None = None,
        sampling: Sampling | None = None,
        max_tokens: int = MAX_TOKENS,
        stop: Sequence[str] = (),
    ) -> None:
        self.engine = engine
        self.templated = engine.tokenizer.template is not None
        self.sampling, self.max_tokens, self.stop = sampling, max_tokens, stop
        self.forgotten = 0
        self._first: list[Message] = [{"role": "system", "content": system}] if system else []
        self._said: list[Message] = []
        self._reply: Reply | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """What is remembered; of an answer that was cut off, what had come."""
        return (*self._first, *self._said, *self._answer())

    def say(self, text: str) -> Reply:
        """Return the answer to a message."""
        said = [*self._said, *self._answer(), {"role": "user", "content": text}]
        kept, ids = self._fitting(said)
        reply = self.engine.stream(ids, self.sampling, self.max_tokens, self.stop)
        self.forgotten += len(said) - len(kept)
        self._said, self._reply = kept, reply
        return reply

    def _answer(self) -> list[Message]:
        return [{"role": "assistant", "content": self._reply.text}] if self._reply else []

    def _fitting(self, said: list[Message]) -> tuple[list[Message], list[int]]:
        """Return the most recent turns that leave room for an answer, and their ids."""
        room = self.engine.context - min(self.max_tokens, self.engine.context // 4)
        ids = self._ids(said)
        while len(ids) > room and len(said) > 1:
            said = said[2:]
            ids = self._ids(said)
        if len(ids) >= self.engine.context:
            raise RecipeError(
                f"the message and the system message have {len(ids)} tokens; "
                f"{self.engine.folder.name} holds {self.engine.context} with its answer",
                "Shorten the message.",
            )
        return said, ids

    def _ids(self, said: Sequence[Message]) -> list[int]:
        everything = [*self._first, *said]
        if self.templated:
            return self.engine.tokenizer.chat_ids(everything)
        return self.engine.encode("".join(message["content"] for message in everything))
