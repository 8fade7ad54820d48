"""What the repository does not say, and what the code does not do."""

import ast
import re

import pytest
from tests.house.places import ROOT, SOURCE, modules, texts, tree

VAGUE = re.compile(
    r"(^|_)(utils?|helpers?|common|managers?|misc|mixins?)(_|$)|^base_(?!model)", re.IGNORECASE
)
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|NotImplemented" r"Error)\b")
MACHINE = re.compile(r"(?<![\w.~])/(work|root|home)/\w|\.\./sha" r"red\b")
UNSAFE = {"pickle", "dill", "marshal", "shelve", "cloudpickle", "joblib"}
BROAD = {  # where every error is caught, and why
    "cli/main.py": "the top of the command line",
    "store/tokenizer.py": "a library that raises bare exceptions",
}
SPEAKING = {
    "recipe/reading.py",
    "recipe/reload.py",
    "recipe/trial.py",
    "store/template_worker.py",
}  # processes of their own


def here(path):
    return path.relative_to(SOURCE).as_posix()


@pytest.mark.parametrize("path", modules(), ids=here)
def test_names_say_something(path):
    names = [path.stem] + [
        node.name
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
    ]
    assert [name for name in names if VAGUE.search(name)] == []


@pytest.mark.parametrize("path", modules(), ids=here)
def test_nothing_is_left_unfinished(path):
    assert UNFINISHED.findall(path.read_text(encoding="utf-8")) == []


def test_no_text_knows_the_machine_it_was_written_on():
    found = [
        f"{path.relative_to(ROOT)}: {hit.group()}"
        for path in texts()
        if (hit := MACHINE.search(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize("path", modules(), ids=here)
def test_imports_are_safe(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not UNSAFE & {name.partition(".")[0] for name in names}
            assert getattr(node, "module", None) != "__future__"
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            assert not (node.arg == "trust_remote_code" and node.value.value is True)
            assert not (node.arg == "weights_only" and node.value.value is False)


@pytest.mark.parametrize("path", modules(), ids=here)
def test_only_the_command_line_speaks_and_exits(path):
    if here(path).startswith("cli/") or here(path) in SPEAKING:
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"print", "exit", "quit"}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("sys", "exit"), ("os", "_exit")}
        assert not (isinstance(node, ast.Name) and node.id == "SystemExit")


def test_only_known_places_catch_everything():
    found = set()
    for path in modules():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler):
                names = (
                    {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
                    if node.type
                    else {""}
                )
                if names & {"", "Exception", "BaseException"}:
                    found.add(here(path))
    assert found <= BROAD.keys()
