"""Where the texts of the repository lie."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "whet"
PAGES = ("README.md", "README.zh.md", "SECURITY.md", "CHANGELOG.md")


def modules() -> list[Path]:
    """Every file of the package."""
    return sorted(SOURCE.rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, inner ones too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def pages() -> list[Path]:
    """Every page that people read."""
    return [ROOT / name for name in PAGES] + sorted((ROOT / "docs").glob("*.md"))


def texts() -> list[Path]:
    """Every file that people wrote; not the books that ship as data."""
    folders = ("src", "tests", "docs", "bench", ".ci")
    kinds = {".py", ".md", ".toml", ".yaml", ".yml", ".html", ".css", ".sh", ".json", ""}
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    found += [path for path in ROOT.iterdir() if path.is_file()]
    skipped = ("/data/demo/", "/__pycache__/", "/results/", "/.venv/")
    return [p for p in found if p.suffix in kinds and not any(part in str(p) for part in skipped)]
