"""Chat templates: rendered as transformers renders them, in a process that can do no harm."""

import time
from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from whet.base.errors import FolderError, UnsafeError, WhetError
from whet.store import template
from whet.store.template import render

MESSAGES = [
    {"role": "system", "content": "Be <brief> & kind"},
    {"role": "user", "content": "Naïve “question”?\n"},
    {"role": "assistant", "content": " yes "},
]
GOOD = {
    "chatml": (
        "{% for message in messages %}\n    {%- if message['role'] == 'user' %}\n"
        "<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n"
        "    {%- endif %}\n{% endfor %}\n"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "tojson": "{{ messages | tojson }} {{ messages[0] | tojson(indent=2) }}",
    "namespace": (
        "{% set ns = namespace(found=0) %}{% for m in messages %}{% set ns.found = ns.found + 1 %}"
        "{% endfor %}{{ ns.found }} {{ dict(a=1)['a'] }}"
    ),
    "loop controls": (
        "{% for m in messages %}{% if loop.index0 == 0 %}{% continue %}{% endif %}"
        "{{ m.content }}{% break %}{% endfor %}"
    ),
    "generation": (
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    ),
    "macros and filters": (
        "{% macro show(m) %}[{{ m.role | upper }}]{% endmacro %}"
        "{{ messages | map(attribute='role') | join(',') }}"
        "{% for m in messages %}{{ show(m) }}{% endfor %}{{ 'x\\ty' | pprint }} {{ undefined }}"
    ),
    "dates": "{{ strftime_now('%Y') | length }}",
}
ARGUMENTS = {"add_generation_prompt": True, "bos_token": "<s>"}


@pytest.mark.parametrize("name", GOOD)
def test_renders_as_transformers(name: str):
    expected, _ = render_jinja_template([MESSAGES], chat_template=GOOD[name], **ARGUMENTS)
    values = {"messages": MESSAGES, "tools": None, "documents": None, **ARGUMENTS}
    assert render(GOOD[name], values) == expected[0]


ATTACKS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch OWNED').read() }}",
    "{{ joiner.__init__.__globals__['__builtins__']['open']('OWNED', 'w') }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].system('touch OWNED') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ raise_exception.__globals__['sys'].modules['os'].system('touch OWNED') }}",
    "{{ strftime_now.__globals__ }}",
    "{{ dict.__init__.__globals__ }}",
    "{{ dict.mro() }}",
    "{{ (''|attr('__class__')|attr('__mro__'))[1] }}",
    "{{ 'a'['__class__'] }}",
    "{{ '%s'.format.__self__ }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ '{0.__class__.__init__.__globals__}'.format_map({'0': messages}) }}",
    "{{ messages|map(attribute='__class__')|list }}",
    "{{ messages|sort(attribute='__class__.__name__') }}",
    "{{ [].append.__self__ }}",
    "{% set ns = namespace(__class__=1) %}{{ ns }}",
    "{% set ns = namespace() %}{% set ns.__init__ = 1 %}{{ ns }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
    "{% extends '/etc/passwd' %}",
    "{{ messages.append({'role': 'x'}) }}",
    "{{ messages[0].update(role='x') }}",
    "{{ messages.clear() }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ url_for.__globals__.os }}",
    "{{ config.items() }}",
    "{{ request.application.__globals__ }}",
    "{{ (1).__class__.__base__ }}",
    "{{ range.__self__ }}",
    "{{ caller.__globals__ }}",
    "{{ loop.__init__.__globals__ }}",
    "{% for m in messages %}{{ loop.__class__.__init__.__globals__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m.__globals__ }}{{ m._environment }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ messages|tojson(default=cycler) }}",
    "{{ ''.join.__func__ }}",
    "{{ open('OWNED', 'w') }}",
    "{{ __import__('os') }}",
    "{{ eval('1') }}{{ exec('1') }}",
    "{{ import_module('os') }}",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_reach_nothing(attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    try:
        text = render(attack, {"messages": [{"role": "user", "content": "hi"}]})
    except WhetError as error:
        text = str(error)
        assert len(text.splitlines()) <= 3
    assert "root:" not in text
    assert "<class" not in text
    assert "0x" not in text.replace("\\x", "")
    assert list(tmp_path.iterdir()) == []


BOMBS = {
    "loops": "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
    "loops in a filter": "{{ range(99999)|map('string')|map('length')|sum * 0 }}"
    + "{% for a in range(99999) %}{{ range(99999)|sum }}{% endfor %}",
    "width": "{{ '%1000000000d'|format(1) }}",
    "width of format": "{{ '{:1000000000}'.format(1) }}",
    "repetition": "{{ 'a' * 10000000000 }}",
    "list repetition": "{{ ([0] * 10000000000)|length }}",
    "power": "{{ (9 ** (9 ** 9)) }}",
    "doubling": (
        "{% set ns = namespace(x='a') %}"
        "{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
    ),
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "output": "{% for a in range(90000) %}{{ 'abcdefgh' * 100 }}{% endfor %}",
    "centre": "{{ 'x'|center(2000000000) }}",
    "replace": "{{ ('a' * 30000)|replace('a', 'b' * 30000)|length }}",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_stopped(bomb: str):
    began = time.perf_counter()
    with pytest.raises((UnsafeError, FolderError)) as caught:
        render(BOMBS[bomb], {"messages": []})
    assert time.perf_counter() - began < 25
    assert caught.value.code in (65, 77)


def test_refusal_of_the_template_is_told():
    with pytest.raises(FolderError, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}", {})


def test_syntax_errors_are_told():
    with pytest.raises(FolderError, match="Unexpected end of template"):
        render("{% for m in messages %}", {})


def test_environment_is_not_visible(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")
    assert render("ok", {}) == "ok"


class Started:
    """Counts the worker processes that are started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        start = template.Worker._start

        def counted(worker: template.Worker) -> object:
            self.count += 1
            return start(worker)

        monkeypatch.setattr(template.Worker, "_start", counted)


def test_one_worker_renders_many_conversations(monkeypatch: pytest.MonkeyPatch):
    started = Started(monkeypatch)
    with template.shared_worker():
        for n in range(20):
            assert render("{% set x = x or n %}{{ x }}", {"n": n + 1}) == str(n + 1)
    assert started.count == 1
    assert template._SHARED.worker is None


def test_a_worker_is_replaced_after_a_limit(monkeypatch: pytest.MonkeyPatch):
    started = Started(monkeypatch)
    text = "{% if bomb %}{{ 'a' * 10000000000 }}{% endif %}ok"
    with template.shared_worker():
        assert render(text, {"bomb": False}) == "ok"
        with pytest.raises(UnsafeError):
            render(text, {"bomb": True})
        assert render(text, {"bomb": False}) == "ok"
    assert started.count == 2


def test_a_worker_is_ended_when_its_reader_is_interrupted(monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    with template.shared_worker():
        assert render("ok", {}) == "ok"
        monkeypatch.setattr(template, "_exchanged", interrupted)
        with pytest.raises(KeyboardInterrupt):
            render("ok", {})
        monkeypatch.undo()
        assert render("ok", {}) == "ok"
