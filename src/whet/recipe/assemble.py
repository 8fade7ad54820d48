"""Make the folder that will be published: shards, configuration, tokenizer, recipe."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from whet.base.quantity import Quantity
from whet.base.record import Record
from whet.recipe.file import dumps
from whet.recipe.pipeline import Pipeline, Stage
from whet.recipe.recipe import Recipe
from whet.store.checkpoint import Checkpoint
from whet.store.durable import write_atomic, write_json
from whet.store.side_files import copy_side_files
from whet.store.writer import Shards


def assemble(
    stage: Stage, recipe: Recipe, source: Checkpoint, parts: Iterable[Path], into: Path
) -> tuple[str, ...]:
    """Write everything but the evidence; return the names of the weight files.

    `recipe` is the whole one, of which the stage may be a part.
    Law: the bytes depend on the plan and the parts alone.
    """
    into.mkdir(parents=True, exist_ok=True)
    copy_side_files(source.folder, into)
    write_json(into / "config.json", dict(stage.config))
    text = f"# whet compress {recipe.name}: every default written out\n" + dumps(recipe)
    write_atomic(into / "recipe.yaml", [text.encode()])
    return _weights(stage, source, parts, into)


def _weights(
    stage: Stage, source: Checkpoint, parts: Iterable[Path], into: Path
) -> tuple[str, ...]:
    """Join the parts' tensors and those of the source that no part has replaced."""
    shards = Shards(into)
    made: set[str] = set()
    renamed = stage.renamed
    for path in parts:
        made |= shards.add(path)
    for name in source.names():
        if name in stage.copied and renamed.get(name, name) not in made:
            shards.copy(source.folder.shard_of(name), name)
    return shards.finish()


def output_records(plan: Pipeline, into: Path, files: tuple[str, ...]) -> Iterator[Record]:
    """Yield what was written: sizes, bits per weight, the dialect and why."""
    chosen = [p for p in plan.placed if p.scheme is not None]
    weights = sum(p.site.shape[0] * p.site.shape[1] for p in chosen)
    bits = sum(p.scheme.format.bits(p.site.shape) for p in chosen if p.scheme)
    size = sum((into / name).stat().st_size for name in files)
    facts = {
        "bytes": Quantity(size, "byte", "weight files on disk"),
        "source_bytes": Quantity(plan.folder.nbytes, "byte", "weight files of the source"),
    }
    if weights:
        facts["bits_per_weight"] = Quantity(
            bits / weights, "bit", "compressed matrices, scales included"
        )
    notes = {
        "dialect": plan.choice.dialect.name,
        "reason": plan.choice.reason,
        "files": " ".join(files),
    }
    yield Record("output", "", facts, notes=notes)
