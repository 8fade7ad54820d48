"""Mathematics names where it comes from."""

import ast
import re

import pytest
from tests.house.places import SOURCE, tree

PAPER = re.compile(r"arXiv:\d{4}\.\d{4,5}|\b(?:19|20)\d\d\)")
METHODS = [
    p
    for p in sorted((SOURCE / "methods").glob("*/*.py"))
    if p.parent.name != "solve" and p.stem != "__init__"
]


def told(path):
    """The docstrings of a file and of what it takes from `solve`."""
    node = tree(path)
    words = ast.get_docstring(node) or ""
    for item in node.body:
        if isinstance(item, ast.ImportFrom) and (item.module or "").startswith(
            "whet.methods.solve."
        ):
            other = SOURCE / "methods" / "solve" / f"{item.module.rpartition('.')[2]}.py"
            words += ast.get_docstring(tree(other)) or ""
    return words


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_every_method_cites_a_paper_with_its_year(path):
    assert PAPER.search(told(path)), "name the paper: arXiv:… or (…, year)"


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_numbers_of_papers_are_possible(path):
    for year, month in re.findall(r"arXiv:(\d\d)(\d\d)\.", told(path)):
        assert 7 <= int(year) <= 40
        assert 1 <= int(month) <= 12
