"""Outputs that cannot be written, machines that are too small, runs that cannot go on."""

import errno
import os

from tests.house.mistakes.place import SHORT, Place, Words, compress, mistake, table
from tests.small import stop_at

import whet
from whet.base.errors import StoppedError
from whet.store.manifest import write_manifest
from whet.store.publish import lock

table(
    [
        (
            "nothing_to_resume",
            66,
            compress("--resume", "required"),
            ("no interrupted run", "--resume"),
        ),
        ("out_is_the_root", 2, compress("-o", "/"), ("/ exists", "another output folder")),
        (
            "out_is_the_source",
            2,
            compress("-o", "model"),
            ("model exists", "another output folder"),
        ),
        (
            "out_has_a_long_name",
            74,
            compress("-o", "x" * 300),
            ("File name too long", "check the path"),
        ),
    ]
)


@mistake(2, "out exists", "--overwrite")
def out_is_taken(place: Place) -> Words:
    place.model()
    place.write("out/mine", "x")
    return compress()


@mistake(2, "out has no manifest.json", "remove it yourself")
def overwrite_what_is_not_ours(place: Place) -> Words:
    place.model()
    place.write("out/mine", "x")
    return compress("--overwrite")


@mistake(2, "out exists and is not a folder", "another output folder")
def out_is_a_file(place: Place) -> Words:
    place.model()
    place.write("out", "x")
    return compress("--overwrite")


@mistake(2, "out exists and is not a folder", "another output folder")
def out_is_a_link(place: Place) -> Words:
    place.model()
    (place.path / "out").symlink_to("nowhere")
    return compress()


@mistake(74, "file is not a folder that can be written to", "choose another")
def out_below_a_file(place: Place) -> Words:
    place.model()
    place.write("file", "x")
    return compress("-o", "file/out")


@mistake(74, "file/a/b/", "Not a directory", "check the path")
def out_far_below_a_file(place: Place) -> Words:
    place.model()
    place.write("file", "x")
    return compress("-o", "file/a/b/out")


@mistake(74, "is not a folder that can be written to", "choose another")
def out_where_nobody_may_write(place: Place) -> Words:
    place.model()
    place.patch.setattr(os, "access", lambda *_: False)
    return compress()


@mistake(65, "model/tokenizer.json is not a tokenizer")
def new_folders_for_nothing(place: Place) -> Words:
    place.model()
    place.write("model/tokenizer.json", "{")
    return compress("-o", "new/deep/out")


def failing(place: Place, name: str, number: int, code: int) -> None:
    """Let the system refuse one call."""
    real, count = getattr(os, name), [0]

    def call(*given: object, **named: object) -> object:
        count[0] += 1
        if count[0] == number:
            raise OSError(code, os.strerror(code))
        return real(*given, **named)

    place.patch.setattr(os, name, call)


@mistake(74, ".out.lock cannot be written", "No space left", "bytes free", "free some disk")
def a_full_disk_at_once(place: Place) -> Words:
    place.model()
    failing(place, "write", 1, errno.ENOSPC)
    return compress()


@mistake(74, "parts/0000", "No space left", "bytes needed", "bytes free", "free some disk")
def a_full_disk_before_long(place: Place) -> Words:
    place.model()
    failing(place, "write", 3, errno.ENOSPC)
    return compress()


@mistake(74, "no space for hidden states", "bytes needed", "fewer samples")
def no_room_for_activations(place: Place) -> Words:
    place.model()
    failing(place, "posix_fallocate", 1, errno.ENOSPC)
    return compress()


@mistake(74, "Input/output error", "check the path")
def a_disk_that_breaks(place: Place) -> Words:
    place.model()
    failing(place, "fsync", 2, errno.EIO)
    return compress()


@mistake(4, "of memory", "MiB can be had", "int4-fast")
def too_little_memory(place: Place) -> Words:
    place.model()
    place.patch.setattr("whet.recipe.estimate.free_memory", lambda: 0)
    return compress()


@mistake(4, "of disk at", "0 MiB are free", "fewer samples")
def too_little_disk(place: Place) -> Words:
    place.model()
    place.patch.setattr("whet.recipe.estimate.free_disk", lambda _: 0)
    return compress()


@mistake(4, "out of memory", "smaller model")
def memory_that_ends(place: Place) -> Words:
    def ends(*_: object) -> None:
        raise MemoryError

    place.model()
    place.patch.setattr("whet.recipe.execute.Execution.run", ends)
    return compress()


@mistake(75, f".out.lock is locked by process {os.getpid()}", "wait until that run ends")
def a_run_under_way(place: Place) -> Words:
    place.model()
    place.hold(lock(place.path / "out"))
    return compress()


def interrupted(place: Place, at: int = 2) -> None:
    """Leave a run that was stopped before one of its parts."""
    try:
        whet.compress(
            place.model(),
            place.path / "plain.yaml",
            set=SHORT,
            out=place.path / "out",
            **stop_at(at),
        )
    except StoppedError:
        return
    raise AssertionError("it was to be stopped")


@mistake(78, "cannot resume", "changed since it was started: ", "recipe", "--resume never")
def another_recipe_than_before(place: Place) -> Words:
    interrupted(place)
    return compress("--set", "rtn.format=int3-g64")


@mistake(78, "cannot resume", "source/generation_config.json", "--resume never")
def another_source_than_before(place: Place) -> Words:
    interrupted(place)
    place.write("model/generation_config.json", '{"do_sample": true}')
    return compress()


@mistake(66, "no text at no.txt")
def a_slip_when_resuming(place: Place) -> Words:
    interrupted(place)
    return compress("--calibration", "no.txt")


@mistake(65, ".out.partial/progress.json", "not valid JSON", "restore")
def progress_that_cannot_be_read(place: Place) -> Words:
    interrupted(place)
    place.write(".out.partial/progress.json", "{")
    return compress()


@mistake(65, ".out.partial/progress.json has done = 'x'", "--resume never")
def progress_that_is_none(place: Place) -> Words:
    interrupted(place)
    place.write(".out.partial/progress.json", '{"done": "x"}')
    return compress()


@mistake(65, "model has no manifest.json", "written by whet")
def verify_what_is_not_ours(place: Place) -> Words:
    place.model()
    return ["verify", "model"]


@mistake(66, "nowhere is no folder", "written")
def verify_nothing(place: Place) -> Words:
    return ["verify", "nowhere"]


@mistake(65, "model is not as whet wrote it: config.json has", "`whet verify` lists")
def measure_what_was_tampered_with(place: Place) -> Words:
    path = place.model()
    place.write("model/records.jsonl", "")
    write_manifest(path, {})
    place.write("model/config.json", (path / "config.json").read_text() + " ")
    place.write("a.txt", "some words of a book " * 10)
    return ["measure", "model", "--data", "a.txt"]
