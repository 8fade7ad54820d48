"""Functions are short, files are not long, and everything public says what it is."""

import ast
from statistics import median, quantiles

import pytest
from tests.house.places import functions, modules, tree
from tests.house.test_words import here

LONGEST_FILE, LONGEST, TYPICAL, MOST = 400, 60, 8, 30  # [line]


def length(node):
    """Lines of a function's body, its docstring not counted."""
    first = node.body[0]
    told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    begin = first.end_lineno + 1 if told else first.lineno
    return node.end_lineno - begin + 1


def test_functions_are_short():
    lengths = [length(node) for path in modules() for node in functions(path)]
    assert max(lengths) <= LONGEST
    assert median(lengths) <= TYPICAL
    assert quantiles(lengths, n=10)[-1] <= MOST


@pytest.mark.parametrize("path", modules(), ids=here)
def test_files_are_not_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", modules(), ids=here)
def test_everything_public_says_what_it_is(path):
    assert ast.get_docstring(tree(path)), "the file"
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            assert first.endswith((".", ":", "?")), node.name


@pytest.mark.parametrize("path", modules(), ids=here)
def test_everything_is_annotated(path):
    for node in functions(path):
        words = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        bare = [word.arg for word in words if word.annotation is None]
        assert set(bare) <= {"self", "cls"}, node.name
        assert node.returns is not None, node.name
