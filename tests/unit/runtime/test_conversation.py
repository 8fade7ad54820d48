import pytest

from whet.base.errors import RecipeError
from whet.runtime.conversation import Conversation
from whet.runtime.engine import Engine, load
from whet.runtime.sample import Sampling
from whet.store.resolve import demo

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("chatty")
    for path in demo().iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return load(folder)


def test_the_model_reads_what_its_template_writes(chatty: Engine) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    expected = chatty.stream("[user] Hello\n[assistant] ", Sampling(), 10).read()
    assert chatty.chat(messages, Sampling(), 10).read() == expected


def test_a_conversation_remembers_both_sides(chatty: Engine) -> None:
    talk = Conversation(chatty, "Be brief.", Sampling(), max_tokens=8)
    first = talk.say("Hello").read()
    talk.say("And then?")
    assert talk.messages[:4] == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And then?"},
    )
    assert talk.templated


def test_an_answer_that_was_cut_off_is_remembered_as_far_as_it_came(chatty: Engine) -> None:
    talk = Conversation(chatty, sampling=Sampling(), max_tokens=30)
    piece = next(talk.say("Hello"))
    assert talk.messages[-1] == {"role": "assistant", "content": piece}


def test_the_oldest_turns_are_forgotten_but_never_the_system_message(chatty: Engine) -> None:
    talk = Conversation(chatty, "Be brief.", Sampling(), max_tokens=2)
    for _ in range(3):
        talk.say("why not " * 300).read()
    assert talk.forgotten == 4
    assert [m["role"] for m in talk.messages] == ["system", "user", "assistant"]


def test_a_message_that_cannot_fit_changes_nothing(chatty: Engine) -> None:
    talk = Conversation(chatty, sampling=Sampling(), max_tokens=2)
    talk.say("Hello").read()
    before = talk.messages
    with pytest.raises(RecipeError, match="holds 1024"):
        talk.say("why not " * 3000)
    assert talk.messages == before
    assert talk.forgotten == 0


def test_without_a_template_the_text_is_continued() -> None:
    engine = load("demo")
    talk = Conversation(engine, sampling=Sampling(), max_tokens=6)
    first = talk.say("It was a dark").read()
    assert first == engine.generate_text("It was a dark", Sampling(), 6)
    second = talk.say(" But he").read()
    assert second == engine.generate_text(f"It was a dark{first} But he", Sampling(), 6)
    assert not talk.templated
