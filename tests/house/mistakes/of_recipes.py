"""Recipes and settings that cannot be carried out as written."""

from tests.house.mistakes.place import PLAIN, Place, Words, compress, mistake, table

SCHEMA = "`whet schema` lists every field"
EXAMPLE = "`whet list recipes int4`"
STEP = "name: x\nsteps:\n- {{{}}}\n"


def note(where: str, rows: list[tuple[str, str | bytes, tuple[str, ...]]]) -> None:
    """Note recipe files that are refused with exit code 2: name, text, what is told."""
    for name, text, told in rows:

        def make(place: Place, text: str | bytes = text) -> Words:
            place.model()
            place.write("mine.yaml", text)
            return compress(recipe="mine.yaml")

        make.__name__ = name
        mistake(2, where, *told)(make)


note(
    "mine.yaml",
    [
        ("yaml_that_is_none", "name: [x", ("line 1: not valid YAML", EXAMPLE)),
        ("yaml_with_tabs", "name: x\nsteps:\n\t- use: rtn\n", ("line 3: not valid YAML", EXAMPLE)),
        ("an_empty_recipe", "", ("not nothing", EXAMPLE)),
        ("a_list_for_a_recipe", "- use: rtn\n", ("not a list", EXAMPLE)),
        ("a_recipe_in_latin_1", b"name: \xe9\n", ("not UTF-8 text", EXAMPLE)),
        ("no_steps", "name: x\n", ("steps: missing", SCHEMA)),
        ("an_empty_list_of_steps", "name: x\nsteps: []\n", ("at least 1", SCHEMA)),
        ("a_key_twice", f"name: y\n{PLAIN}", ("line 2: the key 'name' stands twice", "Keep one")),
        (
            "an_alias_bomb",
            "a: &a [x, x]\nb: &b [*a, *a]\nname: *b\n",
            ("aliases (*name)", "Write the value out"),
        ),
        (
            "a_tag_of_python",
            "name: !!python/object/apply:os.system [ls]\n",
            ("python/object", EXAMPLE),
        ),
        ("a_date_that_is_none", "name: 2024-13-45\n", ("month must be in 1..12", EXAMPLE)),
        ("a_number_of_5000_digits", f"seed: {'9' * 5000}\n", ("not valid YAML", EXAMPLE)),
        ("too_deep_lists", "a: " + "[" * 1500 + "]" * 1500, ("nests deeper than 32", EXAMPLE)),
        ("too_many_brackets", "[" * 100_000, ("nests deeper than 32", EXAMPLE)),
        ("a_huge_recipe", "#" * 300_000, ("300000 bytes", EXAMPLE)),
        (
            "an_unknown_method",
            STEP.format("use: gtpq"),
            ("step 1", "'gtpq'", "Did you mean 'gptq'"),
        ),
        ("an_unknown_field", STEP.format("use: rtn, fromat: nf4-g64"), ("fromat", "mean 'format'")),
        ("an_unknown_key", f"sede: 3\n{PLAIN}", ("sede: unknown field", "Did you mean 'seed'")),
        ("no_method", STEP.format("format: nf4-g64"), ("step 1: a step needs `use`", "Known: ")),
        ("text_for_a_number", STEP.format("use: gptq, damping: big"), ("damping", "'big'", SCHEMA)),
        (
            "no_number_at_all",
            STEP.format("use: gptq, damping: .nan"),
            ("damping", "finite", SCHEMA),
        ),
        ("a_number_too_small", STEP.format("use: gptq, sweeps: -1"), ("sweeps is -1", SCHEMA)),
        ("a_share_above_one", STEP.format("use: gptq, alpha: 7"), ("alpha is 7.0", "0 to 1")),
        ("a_percentile_above_one", STEP.format("use: rtn, percentile: 99.9"), ("is 99.9", SCHEMA)),
        (
            "half_a_sweep",
            STEP.format("use: gptq, sweeps: 1.5"),
            ("sweeps", "valid integer", SCHEMA),
        ),
        ("an_unknown_rule", STEP.format("use: rtn, range: best"), ("'minmax'", "'best'", SCHEMA)),
        (
            "an_unknown_format",
            STEP.format("use: rtn, format: itn4-g64"),
            ("unknown number format 'itn4-g64'", "did you mean int4-g64"),
        ),
        (
            "a_format_without_groups",
            STEP.format("use: rtn, format: int4"),
            ("'int4'", "int4-g64, int4-channel or int4-tensor"),
        ),
        ("one_bit", STEP.format("use: rtn, format: int1-g64"), ("1 bits, expected 2 to 8", "e.g.")),
        (
            "nine_bits",
            STEP.format("use: rtn, format: int9-g64"),
            ("9 bits, expected 2 to 8", "e.g."),
        ),
        (
            "a_group_of_none",
            STEP.format("use: rtn, format: int4-g0"),
            ("'int4-g0'", "did you mean"),
        ),
        (
            "a_number_for_a_format",
            STEP.format("use: rtn, format: 4"),
            ("expected a number format",),
        ),
        (
            "an_unknown_activation",
            STEP.format("use: activations, activation: int8-tokens"),
            ("'int8-tokens'", "did you mean int8-token"),
        ),
        ("a_name_with_a_path", PLAIN.replace("plain", "../x"), ("name: ", "'../x'", SCHEMA)),
    ],
)

note(
    "recipe x, step 1 (",
    [
        (
            "sites_that_are_none",
            STEP.format("use: rtn, where: mlp.upp"),
            ("'mlp.upp' matches no site", "Did you mean 'mlp.up'"),
        ),
        (
            "one_site_of_two",
            STEP.format("use: rtn, where: [mlp.up, mlp.dwon]"),
            ("'mlp.dwon' matches no site", "Did you mean 'mlp.down'"),
        ),
        (
            "nothing_but_what_is_skipped",
            STEP.format("use: rtn") + "skip: [blocks]\n",
            ("selects no site that is not skipped", "Sites: "),
        ),
        ("no_sites", STEP.format("use: rtn, where: []"), ("selects no site", "Sites: ")),
        ("a_tied_head", STEP.format("use: rtn, where: head"), ("head shares", "Select 'embed'")),
        ("gptq_of_tokens", STEP.format("use: gptq, where: embed"), ("reads tokens", "rtn or hqq")),
        (
            "awq_of_tokens",
            STEP.format("use: awq, where: embed"),
            ("embed is in none", "Select blocks"),
        ),
        (
            "a_sum_for_hqq",
            STEP.format("use: hqq, format: int2-g64 + int2-g64"),
            ("hqq fits one range", "another format"),
        ),
    ],
)

note(
    "recipe x: skip = 'mlp.upp' matches no site",
    [("skip_what_is_not_there", STEP.format("use: rtn") + "skip: [mlp.upp]\n", ("'mlp.up'",))],
)
table(
    [
        ("no_such_preset", 2, compress(recipe="itn4"), ("'itn4'", "Did you mean 'int4'")),
        (
            "nothing_like_a_preset",
            2,
            compress(recipe="zzz"),
            ("'zzz'", "Known: balanced, fp8"),
        ),
        ("no_such_recipe_file", 66, compress(recipe="no.yaml"), ("no.yaml", "name of a preset")),
    ]
)


def settings(rows: list[tuple[str, tuple[str, ...], tuple[str, ...]]]) -> None:
    """Note settings that are refused with exit code 2: name, settings, what is told."""
    for name, given, told in rows:
        sets = [word for setting in given for word in ("--set", setting)]
        table([(name, 2, compress(*sets), told)])


HOW = "Write --set step.field=value"
settings(
    [
        ("set_without_a_value", ("rtn.format",), ("'rtn.format'", HOW)),
        ("set_without_a_name", ("=3",), ("unknown field", "Known: ")),
        ("set_of_another_method", ("gptq.format=nf4-g64",), ("no step 'gptq'", "Known: ")),
        ("set_of_a_ninth_step", ("9.format=nf4-g64",), ("no step '9'", "numbered 1 to 1")),
        ("set_of_a_squared_step", ("².format=nf4-g64",), ("no step '²'", "Known: ")),
        ("set_of_an_unknown_field", ("rtn.fromat=x",), ("fromat: unknown", "mean 'format'")),
        ("set_to_broken_yaml", ("rtn.format=[",), ("'rtn.format=['", HOW)),
        ("set_to_code", ("rtn.format=!!python/name:os.system",), ("python/name", HOW)),
        ("set_of_a_number", ("calibration=3", "calibration.length=64"), ("calibration: ", "3")),
        ("set_of_a_window_too_short", ("calibration.length=1",), ("length", "8", SCHEMA)),
        ("set_of_a_seed_below_0", ("seed=-1",), ("seed", "-1", SCHEMA)),
    ]
)
table(
    [
        ("a_seed_below_0", 2, compress("--seed", "-1"), ("--seed", "-1", "--help")),
        ("a_seed_too_large", 2, compress("--seed", "9" * 20), ("seed", "9" * 20, SCHEMA)),
    ]
)
