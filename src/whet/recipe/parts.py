"""What each finished part of a run leaves in the working folder: its tensors and its records."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from whet.base.record import Record, read_records
from whet.store.durable import write_atomic
from whet.store.writer import write_shard

PROBE = "probe.safetensors"  # tokens and logits that a reloaded model must reproduce
HELD = 256 << 20  # tensors that are kept in memory before they are written [byte]
PROBE_WINDOWS, PROBE_TOKENS = 2, 32


def probed(ids: Tensor) -> Tensor:
    """Return the tokens that the reload check compares: the beginnings of a few windows."""
    return ids[:PROBE_WINDOWS, :PROBE_TOKENS].contiguous()


@dataclass(frozen=True, slots=True)
class Parts:
    """Numbered pairs of files: `parts/0003.safetensors` and `parts/0003.jsonl`."""

    folder: Path

    def save(self, part: int, tensors: Mapping[str, Tensor], records: list[Record]) -> None:
        """Write one part, flushed to the disk; an earlier try at it is replaced."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if tensors:
            write_shard(self.folder / f"{part:04d}.safetensors", tensors)
        text = "".join(record.line() + "\n" for record in records)
        write_atomic(self.folder / f"{part:04d}.jsonl", [text.encode()])

    def shards(self, count: int) -> list[Path]:
        """Return the tensor files of the first `count` parts, in order."""
        paths = (self.folder / f"{part:04d}.safetensors" for part in range(count))
        return [path for path in paths if path.is_file()]

    def records(self, count: int) -> Iterator[Record]:
        """Yield the records of the first `count` parts, in order."""
        for part in range(count):
            path = self.folder / f"{part:04d}.jsonl"
            with path.open(encoding="utf-8") as lines:
                yield from read_records(lines, path)
