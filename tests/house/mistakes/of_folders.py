"""Sources that are none, are damaged, or are not what they say."""

import json
import os

import torch
from tests.house.mistakes.place import QUERY, SINGLE, Place, Words, compress, mistake, table

INDEX = "model/model.safetensors.index.json"
HUB = "give a model folder, `demo` or a hub id"

table(
    [
        ("no_such_folder", 66, compress(source="nowhere"), ("nowhere does not exist", HUB)),
        ("no_such_user", 66, ["inspect", "~nobody-here/model"], ("~nobody-here/model", HUB)),
        ("an_empty_name", 66, ["inspect", ""], ("does not exist", HUB)),
        ("a_name_too_long", 66, ["inspect", "x" * 300], ("File name too long", "Check the path")),
        ("a_name_that_paints", 66, ["inspect", "a\x1b]0;b\x07\nc"], ("a c does not exist", HUB)),
        (
            "not_in_the_cache",
            66,
            ["inspect", "org/no-such", "--offline"],
            ("org/no-such", "online"),
        ),
        (
            "no_name_of_the_hub",
            66,
            ["inspect", "a/b--c", "--offline"],
            ("a/b--c", "check the name"),
        ),
        ("a_device", 65, ["inspect", "/dev/zero"], ("/dev/zero is a file", "folder")),
    ]
)


@mistake(65, "model.txt is a file, expected a model folder", "the folder it lies in")
def a_file_for_a_folder(place: Place) -> Words:
    place.write("model.txt", "x")
    return compress(source="model.txt")


@mistake(65, "model has no config.json", "Hugging Face model folder")
def an_empty_folder(place: Place) -> Words:
    (place.path / "model").mkdir()
    return compress()


@mistake(65, "model has no config.json", "Hugging Face model folder")
def no_config(place: Place) -> Words:
    (place.model() / "config.json").unlink()
    return compress()


@mistake(65, "model/config.json is not valid JSON", "line 1 column 9", "restore")
def a_broken_config(place: Place) -> Words:
    place.model()
    place.write("model/config.json", '{"a": 1,}')
    return compress()


@mistake(65, "model/config.json is not valid JSON", "'a' appears twice")
def a_config_that_says_two_things(place: Place) -> Words:
    place.model()
    place.write("model/config.json", '{"a": 1, "a": 2}')
    return compress()


@mistake(65, "num_hidden_layers = 'many'", "expected a positive integer")
def a_word_for_a_number(place: Place) -> Words:
    place.model(num_hidden_layers="many")
    return compress()


@mistake(65, f"num_hidden_layers = {10**12}", "up to 10000")
def too_many_layers_to_be_true(place: Place) -> Words:
    place.model(num_hidden_layers=10**12)
    return compress()


@mistake(65, "architectures = 'LlamaForCausalLM'", "expected a list", "Restore")
def a_name_for_a_list(place: Place) -> Words:
    place.model(architectures="LlamaForCausalLM")
    return compress()


@mistake(65, "model/model.safetensors has 200 bytes", "download or copy")
def a_garbled_header(place: Place) -> Words:
    place.model()
    place.write(f"model/{SINGLE}", b"\xff" * 200)
    return compress()


@mistake(65, "model/model.safetensors was cut short", "download or copy")
def a_shard_cut_short(place: Place) -> Words:
    whole = (place.model() / SINGLE).read_bytes()
    place.write(f"model/{SINGLE}", whole[:-100])
    return compress()


@mistake(65, "model/model.safetensors has 0 bytes", "download or copy")
def an_empty_shard(place: Place) -> Words:
    place.model()
    place.write(f"model/{SINGLE}", b"")
    return ["inspect", "model"]


@mistake(65, "model-00001-of-00002.safetensors is missing", INDEX, "download the missing shard")
def a_missing_shard(place: Place) -> Words:
    (place.model() / SINGLE).unlink()
    place.write(INDEX, json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    return compress()


@mistake(65, "model-00003-of-00009.safetensors is an extra shard", "remove it")
def an_extra_shard(place: Place) -> Words:
    place.model()
    place.write("model/model-00003-of-00009.safetensors", b"x")
    return compress()


@mistake(77, INDEX, "'../base/model.safetensors'", "points outside")
def an_index_that_escapes(place: Place) -> Words:
    (place.model() / SINGLE).unlink()
    place.write(INDEX, json.dumps({"weight_map": {"a": "../base/model.safetensors"}}))
    return compress()


@mistake(77, "model/model.safetensors is a link to", "outside its folder", "copy the file")
def a_shard_that_is_a_link(place: Place) -> Words:
    path = place.model() / SINGLE
    path.unlink()
    path.symlink_to("/etc/hostname")
    return compress()


@mistake(77, "model/model.safetensors is not a regular file", "plain file")
def a_shard_that_is_a_pipe(place: Place) -> Words:
    path = place.model() / SINGLE
    path.unlink()
    os.mkfifo(path)
    return compress()


@mistake(65, "no weights, expected model.safetensors", "download the weights")
def no_weights(place: Place) -> Words:
    (place.model() / SINGLE).unlink()
    return compress()


@mistake(
    65, "model.embed_tokens.weight has shape [4096, 256]", "calls for [4096, 512]", "same model"
)
def a_config_of_a_larger_model(place: Place) -> Words:
    place.model(hidden_size=512, head_dim=64)
    return compress()


@mistake(65, "no tensor model.layers.1.", "config.json calls for", "all shards there?")
def a_config_of_a_deeper_model(place: Place) -> Words:
    place.model(num_hidden_layers=2)
    return compress()


@mistake(65, "model holds model.layers.", "beyond the", "num_nextn_predict_layers")
def a_block_that_the_config_forgets(place: Place) -> Words:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.9.self_attn.q_proj.weight"] = torch.zeros(256, 256)

    place.weights(change)
    return compress()


@mistake(65, f"{QUERY} is stored as I8", "expected one of BF16", "compressed by something")
def integers_for_weights(place: Place) -> Words:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[QUERY] = tensors[QUERY].to(torch.int8)

    place.weights(change)
    return compress()


@mistake(65, f"model: {QUERY}[3, 5] is not a finite number", "get it again")
def a_weight_that_is_no_number(place: Place) -> Words:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[QUERY][3, 5] = torch.nan

    place.weights(change)
    return compress()


@mistake(65, f"model: {QUERY}[0, 7] is not a finite number", "get it again")
def an_infinite_weight(place: Place) -> Words:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[QUERY][0, 7] = -torch.inf

    place.weights(change)
    return compress()


@mistake(65, "4 of 4 calibration samples", "at attn.out", "huge weights")
def weights_that_overflow(place: Place) -> Words:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[QUERY] = tensors[QUERY].float() * 1e38

    place.weights(change)
    return compress("--set", "rtn.range=hessian")


@mistake(77, "only as pytorch_model.bin", "can run code", "save_pretrained")
def weights_that_are_a_pickle(place: Place) -> Words:
    path = place.model()
    (path / SINGLE).rename(path / "pytorch_model.bin")
    return compress()


@mistake(77, "model/config.json asks for code", "auto_map", "transformers supports itself")
def code_in_the_folder(place: Place) -> Words:
    place.model(model_type="own", auto_map={"AutoModelForCausalLM": "modeling.Model"})
    place.write("model/modeling.py", "open('owned', 'w')")
    return compress()


@mistake(77, "model/config.json", "_attn_implementation_internal", "loads a kernel")
def a_kernel_in_the_config(place: Place) -> Words:
    place.model(_attn_implementation_internal="someone/kernel")
    return ["run", "model", "Hello"]


@mistake(77, "model/tokenizer_config.json asks for code", "auto_map", "has no tokenizer.json")
def code_in_the_tokenizer(place: Place) -> Words:
    (place.model() / "tokenizer.json").unlink()
    place.write("model/tokenizer_config.json", json.dumps({"auto_map": {"A": "tok.T"}}))
    return ["measure", "model"]


@mistake(69, "model_type = 'newest'", "known families", "upgrade transformers")
def a_family_unknown_to_all(place: Place) -> Words:
    place.model(model_type="newest", architectures=["NewestForCausalLM"])
    return compress()


@mistake(69, "model_type = 'newest'", "does not recognize", "upgrade transformers")
def a_type_unknown_to_all(place: Place) -> Words:
    place.model(model_type="newest", architectures=["BertModel"])
    return compress()


@mistake(69, "holds 2 models: a.gguf, b.gguf", "give one of them")
def a_folder_of_gguf_files(place: Place) -> Words:
    place.write("model/a.gguf", b"GGUF")
    place.write("model/b.gguf", b"GGUF")
    return compress()


@mistake(69, "mmproj-f16.gguf holds a vision tower", "download the model itself")
def a_gguf_vision_tower(place: Place) -> Words:
    place.write("model/mmproj-f16.gguf", b"GGUF")
    return compress()


@mistake(65, "m-00002-of-00002.gguf is missing", "download all parts")
def a_gguf_part(place: Place) -> Words:
    place.write("model/m-00001-of-00002.gguf", b"GGUF")
    return compress()


@mistake(65, "model/model.gguf has 4 bytes, fewer than a header", "download or convert")
def a_gguf_file(place: Place) -> Words:
    place.write("model/model.gguf", b"GGUF")
    return compress(source="model/model.gguf")


@mistake(69, "model is compressed by 'aqlm', which whet cannot read", "give the original model")
def compressed_in_an_unknown_way(place: Place) -> Words:
    place.model(quantization_config={"quant_method": "aqlm"})
    return compress()


@mistake(69, "GPTQ in the layout 'marlin', expected gptq or gptq_v2", "give the original model")
def compressed_in_a_layout_of_its_own(place: Place) -> Words:
    place.model(quantization_config={"quant_method": "gptq", "checkpoint_format": "marlin"})
    return compress()


@mistake(65, "quantization_config is no object", "restore config.json")
def compressed_by_nobody_knows_what(place: Place) -> Words:
    place.model(quantization_config=["gptq"])
    return compress()


@mistake(69, "model is compressed by 'aqlm', which whet cannot read", "the original model")
def run_what_another_program_compressed(place: Place) -> Words:
    place.model(quantization_config={"quant_method": "aqlm"})
    return ["run", "model", "Hello"]


@mistake(65, "model/tokenizer.json is not a tokenizer", "download the file again")
def a_broken_tokenizer(place: Place) -> Words:
    place.model()
    place.write("model/tokenizer.json", "{")
    return compress()


@mistake(69, "model has no tokenizer.json", "AutoTokenizer")
def no_tokenizer(place: Place) -> Words:
    (place.model() / "tokenizer.json").unlink()
    return compress()


@mistake(65, "the tokenizer makes token", "the model knows 0 to 99", "same model")
def a_tokenizer_of_a_larger_model(place: Place) -> Words:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in {"model.embed_tokens.weight", "lm_head.weight"} & tensors.keys():
            tensors[name] = tensors[name][:100].clone()

    place.weights(change, vocab_size=100)
    return compress()


@mistake(65, "records.jsonl, line 2: not a record", "whet verify")
def records_that_are_none(place: Place) -> Words:
    place.model()
    good = '{"step": "x", "site": "", "facts": {}, "notes": {}}\n'
    place.write("model/records.jsonl", good + '{"step": "x", "facts": []}\n')
    return ["inspect", "model"]
