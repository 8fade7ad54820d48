"""The parts of the API that need no torch."""

import json
import pkgutil
from importlib import import_module

import pytest
from tests.unit.report import examples

import whet
from whet import api
from whet.api.attach import attach, is_output
from whet.api.catalogue import formats, methods, recipe_text, recipes
from whet.api.checks import Requirement, _extra, fits, requirements
from whet.api.inspection import folder_records
from whet.base.errors import FolderError
from whet.base.record import append_records
from whet.methods import catalogue
from whet.store.manifest import write_manifest


def test_no_file_hides_a_function_of_its_name():
    functions = {name for name in vars(api) if callable(getattr(api, name))}
    assert not functions & {info.name for info in pkgutil.iter_modules(api.__path__)}


@pytest.mark.parametrize("name", whet.__all__)
def test_functions_stay_where_a_package_has_their_name(name):
    modules = [info.name for info in pkgutil.iter_modules(whet.__path__)]
    if name in modules:
        first = next(pkgutil.iter_modules(import_module(f"whet.{name}").__path__)).name
        import_module(f"whet.{name}.{first}")
    assert name == "__version__" or callable(getattr(whet, name))


def test_methods_are_found_without_running_them():
    assert [entry.name for entry in methods()] == list(catalogue())
    assert all(entry.summary.endswith(".") for entry in methods())


def test_recipes_have_names_descriptions_and_yaml():
    names = [entry.name for entry in recipes()]
    assert names == sorted(names)
    assert "int4" in names
    assert recipe_text("int4").startswith("name: int4\n")
    assert recipe_text("none") is None


def test_formats_say_their_bits():
    bits = {entry.name: entry.facts["bit per weight"] for entry in formats()}
    assert bits["int4-g64"] == "4.25"
    assert bits["bf16"] == "16"


def test_inspection_of_a_compressed_folder(tmp_path):
    append_records(tmp_path / "records.jsonl", examples.compressed())
    assert len(folder_records(tmp_path)) == len(examples.compressed())
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(FolderError, match="line"):
        folder_records(tmp_path)


def test_unknown_models_are_inspected_too(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "strange"}))
    (tmp_path / "model.safetensors").write_bytes((6).to_bytes(8, "little") + b"{}    ")
    found = api.inspect(tmp_path)
    assert found.family == ""
    assert "strange" in found.refusal


def test_attaching_needs_an_intact_folder(tmp_path):
    assert not is_output(tmp_path)
    append_records(tmp_path / "records.jsonl", examples.compressed())
    write_manifest(tmp_path, {"seed": 5})
    assert is_output(tmp_path)
    attach(tmp_path, examples.measured())
    assert api.verify(tmp_path) == []
    assert json.loads((tmp_path / "manifest.json").read_text())["facts"] == {"seed": 5}
    (tmp_path / "stray").write_text("x")
    with pytest.raises(FolderError, match="stray"):
        attach(tmp_path, examples.measured())


@pytest.mark.parametrize(
    ("version", "least", "below", "good"),
    [
        ("2.13.0+cpu", "2.11", "3", True),
        ("2.9", "2.11", "", False),
        ("3.0", "2.11", "3", False),
        ("5.23.0", "5.15", "6", True),
        ("1", "", "", True),
    ],
)
def test_versions(version, least, below, good):
    assert fits(version, Requirement("x", least, below, "")) is good


def test_requirements_are_those_of_the_package():
    every = requirements()
    assert Requirement("torch", "2.11", "3", "compress") in every
    extras = {"", "compress", "data", "eval", "interop", "search", "train", "test", "dev"}
    assert extras == {r.extra for r in every}


def test_a_missing_package_is_named_with_its_line():
    wanted = [Requirement("no-such-package", "1", "", "x"), Requirement("click", "999", "", "x")]
    check = _extra("extra x", wanted, "pip install x", "missing")
    assert check.state == "missing"
    assert "no-such-package is missing" in check.found
    assert "(needs >=999)" in check.found
    assert check.hint == "pip install x"
