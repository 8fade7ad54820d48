"""Words that are no command, prompts that cannot be answered, packages that are not there."""

import json

from tests.house.mistakes.place import Place, Words, compress, mistake, table

table(
    [
        (
            "an_unknown_verb",
            2,
            ["comprss", "model"],
            ("'comprss'", "Did you mean 'compress'", "--help"),
        ),
        ("nothing_like_a_verb", 2, ["xyzzy"], ("'xyzzy'", "Verbs: compress, search", "--help")),
        ("an_unknown_option", 2, compress("--recipee", "x"), ("--recipee", "'--recipe'", "--help")),
        ("no_source", 2, ["compress"], ("Missing argument 'SOURCE'", "whet compress --help")),
        ("two_sources", 2, ["inspect", "model", "more"], ("unexpected extra argument", "--help")),
        (
            "an_unknown_style",
            2,
            ["inspect", "model", "--format", "xml"],
            ("'xml'", "'json'", "--help"),
        ),
        ("an_unknown_policy", 2, compress("--resume", "yes"), ("'yes'", "'required'", "--help")),
        ("an_unknown_list", 2, ["list", "recipe"], ("'recipe'", "'recipes'", "--help")),
        ("an_unknown_entry", 2, ["list", "methods", "gtpq"], ("'gtpq'", "Did you mean 'gptq'")),
        ("an_unknown_format_entry", 2, ["list", "formats", "int4-g"], ("'int4-g'", "did you mean")),
        (
            "no_room_for_tokens",
            2,
            ["run", "model", "x", "--max-tokens", "0"],
            ("'--max-tokens'", "--help"),
        ),
        (
            "too_hot_to_be_true",
            2,
            ["run", "model", "x", "--temperature", "nan"],
            ("nan", "another temperature"),
        ),
        (
            "no_penalty",
            2,
            ["run", "model", "x", "--repetition-penalty", "0"],
            ("is 0.0", "another repetition_penalty"),
        ),
        (
            "a_stop_that_is_empty",
            2,
            ["run", "model", "x", "--stop", ""],
            ("stop string is empty", "Give"),
        ),
        (
            "a_system_for_no_chat",
            2,
            ["run", "model", "x", "--system", "y"],
            ("chat template", "--help"),
        ),
        ("a_long_prompt", 2, ["run", "model", "word " * 2000], ("2002 tokens", "1024", "Shorten")),
        ("a_huge_prompt", 2, ["run", "model", "x" * 99_999], ("99999 characters", "Shorten")),
        ("a_prompt_not_utf_8", 2, ["run", "model", "a\udcff"], ("character 2", "UTF-8")),
        ("run_nothing", 66, ["run", "nowhere", "Hello"], ("nowhere does not exist", "hub id")),
        (
            "measure_against_nothing",
            66,
            ["measure", "model", "--against", "no"],
            ("no does not", "hub id"),
        ),
    ]
)


@mistake(69, "this needs torch", 'pip install "whet[compress]"')
def no_torch(place: Place) -> Words:
    place.model()
    place.patch.setattr("importlib.util.find_spec", lambda *_: None)
    return compress()


def of_model(code: int, name: str, file: str, content: str | bytes, *told: str) -> None:
    """Note a file of the model that spoils the answer to a prompt."""

    def make(place: Place) -> Words:
        place.model()
        place.write(f"model/{file}", content)
        return ["run", "model", "Hello", "--max-tokens", "2"]

    make.__name__ = name
    mistake(code, *told)(make)


CHAT, SETTINGS = "chat_template.jinja", "generation_config.json"
LOOPS = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
of_model(65, "a_template_cut_off", CHAT, "{% for", "template", "plain text")
of_model(
    65, "a_template_that_reaches_out", CHAT, "{{ ''.__class__.__mro__ }}", "unsafe", "plain text"
)
of_model(65, "a_template_not_utf_8", CHAT, b"\xff\xfe", f"model/{CHAT} is not UTF-8", "download")
of_model(77, "a_template_without_end", CHAT, LOOPS, "stopped at 2 s", "do not use this template")
of_model(65, "settings_cut_off", SETTINGS, "{", f"model/{SETTINGS} is not valid JSON", "restore")
of_model(
    65,
    "settings_in_words",
    SETTINGS,
    json.dumps({"do_sample": True, "temperature": "hot"}),
    f"{SETTINGS} has temperature = 'hot'",
    "expected a number",
    "Mend",
)
of_model(
    65,
    "settings_out_of_range",
    SETTINGS,
    json.dumps({"do_sample": True, "top_p": 1.5}),
    f"{SETTINGS}: top_p is 1.5",
    "Mend",
)
