"""Texts to calibrate or measure on that cannot be read, or say too little."""

import json
import os

from tests.house.mistakes.place import Place, Words, compress, mistake, table

GIVE = "Give a .txt, .jsonl or .json file"
MEND = "Mend or remove that row"
SAVE = "Save it as UTF-8"
ROW = '{"text": "some words of a book"}\n'


def note(rows: list[tuple[str, int, str, str | bytes, tuple[str, ...]]]) -> None:
    """Note texts that are refused: name, exit code, file, content, what is told."""
    for name, code, file, content, told in rows:

        def make(place: Place, file: str = file, content: str | bytes = content) -> Words:
            place.model()
            place.write(file, content)
            return compress("--calibration", file)

        make.__name__ = name
        mistake(code, *told)(make)


note(
    [
        ("an_empty_text", 65, "a.txt", "", ("a.txt: 0 tokens", "at least 32", "Give more text")),
        ("a_word", 65, "a.txt", "hi", ("a.txt: 2 tokens", "at least 32", "Give more text")),
        ("not_utf_8", 65, "a.txt", b"one\n\ntwo \xff", ("a.txt, row 3: not UTF-8", SAVE)),
        ("a_row_cut_off", 65, "a.jsonl", ROW + '{"text": \n', ("a.jsonl, row 2: not JSON", MEND)),
        (
            "a_row_not_utf_8",
            65,
            "a.jsonl",
            ROW.encode() + b'{"text": "\xff"}\n',
            ("a.jsonl, row 2: not UTF-8", SAVE),
        ),
        ("half_a_character", 65, "a.jsonl", '{"text": "\\ud800"}\n', ("row 1", "surrogate", MEND)),
        (
            "another_column",
            65,
            "a.jsonl",
            ROW + '{"txt": "x"}\n',
            ("a.jsonl, row 2: expected `text`", "found columns: txt", "Rename the column"),
        ),
        ("a_row_that_is_a_list", 65, "a.jsonl", "[1]\n", ("row 1", "found list", MEND)),
        ("a_number_for_text", 65, "a.jsonl", ROW + '{"text": 3}\n', ("row 2", "found int", MEND)),
        ("no_messages", 65, "a.jsonl", '{"messages": 3}\n', ("row 1: `messages`", MEND)),
        (
            "a_deep_row",
            65,
            "a.jsonl",
            "[" * 100_000 + "\n",
            ("a.jsonl, row 1: nested too deeply", MEND),
        ),
        (
            "a_row_of_20_megabytes",
            65,
            "a.jsonl",
            ROW + json.dumps({"text": "x" * 20_000_000}) + "\n",
            ("a.jsonl, row 2: longer than 16 MiB", "Split it"),
        ),
        ("another_kind_of_file", 2, "a.csv", "a,b\n", ("a.csv: expected .txt or .jsonl", GIVE)),
        (
            "a_chat_for_a_model_without_template",
            69,
            "a.jsonl",
            '{"messages": [{"role": "user", "content": "x"}]}\n',
            ("no chat template", "use a chat model"),
        ),
    ]
)

table(
    [
        ("no_such_text", 66, compress("--calibration", "no.txt"), ("no text at no.txt", GIVE)),
        ("an_empty_path", 66, compress("--calibration", ""), ("an empty path", GIVE)),
        (
            "a_text_of_nobody",
            66,
            compress("--calibration", "~nobody-here/a.txt"),
            ("~nobody", GIVE),
        ),
        (
            "no_such_text_to_measure_on",
            66,
            ["measure", "model", "--data", "no.txt"],
            ("no.txt", GIVE),
        ),
    ]
)


@mistake(65, "the folder texts has no .txt or .jsonl file", GIVE)
def a_folder_without_texts(place: Place) -> Words:
    place.model()
    place.write("texts/a.pdf", b"%PDF")
    return compress("--calibration", "texts")


@mistake(2, "pipe.txt: expected .txt or .jsonl", GIVE)
def a_pipe_for_a_text(place: Place) -> Words:
    place.model()
    os.mkfifo(place.path / "pipe.txt")
    return compress("--calibration", "pipe.txt")


@mistake(69, "hf:org/books needs the `datasets` package", 'pip install "whet[data]"')
def a_dataset_without_the_extra(place: Place) -> Words:
    place.model()
    place.patch.setitem(__import__("sys").modules, "datasets", None)
    return compress("--calibration", "hf:org/books")


@mistake(65, "the text a.txt has 2 tokens", "at least 16")
def too_short_to_measure_on(place: Place) -> Words:
    place.model()
    place.write("a.txt", "hi")
    return ["measure", "model", "--data", "a.txt"]


@mistake(65, "other and", "do not go together", "different tokens", "made from")
def a_model_with_other_tokens(place: Place) -> Words:
    file = place.model("other") / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    names = sorted(vocabulary, key=vocabulary.get)[500:]
    for one, two in zip(names[::2], names[1::2], strict=False):
        vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    place.write("other/tokenizer.json", json.dumps(tokenizer))
    place.model()
    return ["measure", "other", "--against", "model"]


table(
    [
        (
            "a_task_that_is_a_file",
            77,
            ["measure", "model", "--tasks", "evil.yaml"],
            ("evil.yaml", "names of tasks"),
        ),
        (
            "no_task",
            77,
            ["measure", "model", "--tasks", ""],
            ("no name of a task",),
        ),
    ]
)
