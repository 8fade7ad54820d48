"""`whet run`."""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from whet.cli.options import running, verb

if TYPE_CHECKING:
    from whet.formats.keeping import Keeping
    from whet.runtime.conversation import Conversation
    from whet.runtime.engine import Engine
    from whet.runtime.executor import Choice, Inputs, Kernels
    from whet.runtime.reply import Reply
    from whet.runtime.sample import Sampling

MAX_TOKENS = 256
LONGEST = 1 << 20  # of a prompt from a pipe [character]
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")


@verb("run")
@click.argument("folder")
@click.argument("prompt", required=False)
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=MAX_TOKENS,
    show_default=True,
    help="At most so many new tokens.",
)
@click.option("--temperature", type=click.FloatRange(min=0), help="0 takes the most likely token.")
@click.option(
    "--top-k", type=click.IntRange(min=0), help="Only the k most likely tokens; 0 is off."
)
@click.option(
    "--top-p", type=click.FloatRange(0, 1), help="Only the likeliest tokens that add up to p."
)
@click.option(
    "--min-p", type=click.FloatRange(0, 1), help="Only tokens at least p as likely as the best."
)
@click.option("--repetition-penalty", type=float, help="Above 1 avoids what was said.")
@click.option("--seed", type=click.IntRange(min=0), help="The same seed gives the same text.")
@click.option("--draft", metavar="SOURCE", help="A smaller model that guesses: same text, faster.")
@click.option("--no-draft", is_flag=True, help="Do without the one that the folder has inside.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text. Repeatable.")
@click.option("--system", metavar="TEXT", help="What the model is told before a chat.")
@click.option("--raw", is_flag=True, help="Continue PROMPT as it is, without the chat template.")
@running
def command(  # noqa: PLR0913
    *,
    folder: str,
    prompt: str | None,
    style: str,
    offline: bool,
    executor: "Choice",
    kernels: "Kernels",
    cache: "Keeping | None",
    inputs: "Inputs",
    draft: str | None,
    no_draft: bool,
    **asked: Any,  # noqa: ANN401
) -> None:
    """Generate text, or chat.

    FOLDER is what `whet compress` wrote, or any SOURCE. Without PROMPT, what comes through a pipe
    is the prompt; on a terminal a chat begins, which /exit ends. How tokens are chosen is what the
    model's authors recommend (greedy, if they say nothing) unless an option says otherwise.
    """
    from whet import api

    text = prompt if prompt is not None or sys.stdin.isatty() else _piped()
    if text is None and style == "json":
        raise click.UsageError("--format json needs a PROMPT")
    if draft and no_draft:
        raise click.UsageError("--draft and --no-draft contradict each other")
    engine = api.load(
        folder,
        executor=executor,
        kernels=kernels,
        cache=cache,
        inputs=inputs,
        draft=False if no_draft else draft,
        offline=offline,
    )
    _say_fallback(engine)
    if text is None:
        _chat(engine, **asked)
    else:
        _show(_reply(engine, text, **asked), text, style)


def _say_fallback(engine: "Engine") -> None:
    """Say why it is not the native kernels that compute, where they were wanted."""
    if engine.fallback:
        from whet.cli import output
        from whet.runtime.choice import told

        output.tell(f"whet: runs by the reference executor: {told(engine.fallback)}")


def _piped() -> str:
    """Return the prompt that comes through a pipe."""
    try:
        text = sys.stdin.read(LONGEST + 1)
    except UnicodeDecodeError as error:
        raise click.UsageError(f"the prompt is not UTF-8 text ({error.reason})") from None
    if not text.strip():
        raise click.UsageError("the prompt is empty")
    if len(text) > LONGEST:
        raise click.UsageError(f"the prompt is longer than {LONGEST} characters")
    return text.removesuffix("\n")


def _sampling(engine: "Engine", asked: dict[str, Any]) -> "Sampling":
    """Return what the model's authors recommend, with what was asked put in its place."""
    given = {name: asked[name] for name in SAMPLING if asked[name] is not None}
    return replace(engine.recommended, **given)


def _conversation(engine: "Engine", **asked: Any) -> "Conversation":  # noqa: ANN401
    """Return a conversation with the settings that were asked for."""
    from whet.runtime.conversation import Conversation

    sampling = _sampling(engine, asked)
    return Conversation(engine, asked["system"], sampling, asked["max_tokens"], asked["stop"])


def _reply(engine: "Engine", text: str, **asked: Any) -> "Reply":  # noqa: ANN401
    """Return the answer to one prompt: by the chat template, if there is one and it is wanted."""
    if engine.tokenizer.template is not None and not asked["raw"]:
        return _conversation(engine, **asked).say(text)
    if asked["system"]:
        raise click.UsageError(
            f"--system needs a chat template, and {engine.folder.name} uses none"
        )
    return engine.stream(text, _sampling(engine, asked), asked["max_tokens"], asked["stop"])


def _show(reply: "Reply", prompt: str, style: str) -> None:
    """Write an answer piece by piece, or whole as JSON."""
    from whet.cli import output

    if style == "json":
        text = reply.read()
        told = {"prompt": prompt, "text": text, "tokens": reply.ids, "finish": reply.finish}
        output.result_json(told)
        return
    _stream(reply)
    if reply.finish == "context":
        output.tell("whet: the context is full")


def _stream(reply: "Reply") -> None:
    """Write the pieces of an answer as they come, without control characters."""
    from whet.base.text import plain

    for piece in reply:
        click.echo(plain(piece, keep="\n\t"), nl=False)
    click.echo()


def _chat(engine: "Engine", **asked: Any) -> None:  # noqa: ANN401
    """Talk until /exit or the end of input; an interrupt ends the answer, not the chat."""
    from whet.cli import output

    conversation, forgotten = _conversation(engine, **asked), 0
    output.tell(f"{engine.folder.name}: /exit or Ctrl-D ends the chat, Ctrl-C an answer")
    while (said := _said()) is not None:
        try:
            _stream(conversation.say(said))
        except KeyboardInterrupt:
            click.echo()
        if conversation.forgotten > forgotten:
            forgotten = conversation.forgotten
            output.tell(f"(the context is full: the oldest {forgotten} messages are forgotten)")


def _said() -> str | None:
    """Return what somebody types, or None at the end."""
    _with_history()
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            click.echo()
            return None
        if text == "/exit":
            return None
        if text:
            return text


def _with_history() -> None:
    """Give `input` arrow keys and a history, where the system has them."""
    from contextlib import suppress
    from importlib import import_module

    with suppress(ImportError):
        import_module("readline")
