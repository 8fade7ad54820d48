"""Laws of passes that change a model's shape: what is left computes what it should, and loads elsewhere."""

from pathlib import Path

import pytest
import torch
from tests.structures import FAMILIES, changed, close, edited, logits, model_of, outcome, theirs
from torch import Tensor

from whet.methods.structure.activation import Activation
from whet.methods.structure.depth import Depth
from whet.methods.structure.experts import Experts
from whet.methods.structure.ffn import Ffn
from whet.methods.structure.gqa import Gqa
from whet.methods.structure.heads import Heads
from whet.methods.structure.hidden import Hidden
from whet.methods.structure.window import Window
from whet.model.family import find
from whet.model.site import Site
from whet.model.source import InMemory
from whet.passes.model_pass import ModelPass

FEW = {"samples": 4, "length": 12}
USES: dict[str, ModelPass] = {
    "ffn": Ffn(share=0.3, multiple=8, **FEW),
    "ffn-plain": Ffn(share=0.3, multiple=8, criterion="activation", refit=False, **FEW),
    "heads": Heads(keep=1, **FEW),
    "depth": Depth(layers=(0,)),
    "hidden": Hidden(share=0.25, multiple=8, **FEW),
    "experts": Experts(keep=2, **FEW),
    "gqa": Gqa(heads=1),
    "activation": Activation(to="relu"),
    "window": Window(tokens=3),
}
REFUSED = {  # by families, and why
    "heads": ("gpt2", "gpt_neox", "opt"),
    "hidden": ("gpt2", "gpt_neox", "opt"),
    "gqa": ("gpt2", "gpt_neox", "opt"),
    "experts": (
        "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2", "gpt2",
        "gpt_neox", "opt",
    ),
    "activation": ("opt",),
    "window": ("olmo2", "gpt2", "gpt_neox", "opt", "gemma3"),
}  # fmt: skip


def refused(name: str, case: str) -> bool:
    family = find(model_of(case).config).name
    return family in REFUSED.get(name, ()) or (name == "window" and case == "llama-biases")


@pytest.mark.parametrize("case", FAMILIES)
@pytest.mark.parametrize("name", USES)
def test_the_result_is_what_transformers_computes(case: str, name: str, tmp_path: Path) -> None:
    model, use = model_of(case), USES[name]
    if refused(name, case):
        assert use.refuses(model.config)
        return
    found = changed(use, model, tmp_path)
    ours = logits(found)
    assert torch.isfinite(ours).all()
    if "stacked" not in case:
        assert close(theirs(found, tmp_path), ours)
    same = sum(t.numel() for t in model.tensors.values()) == sum(
        t.numel() for t in found.tensors.values()
    )
    assert same == (name in ("activation", "window"))


def sites(model: InMemory, *roles: str) -> list[Site]:
    family = find(model.config)
    arch = family.architecture(model.config, model.names())
    return [s for s in family.sites(arch) if s.role.endswith(roles) and s.layer is not None]


def unheard(model: InMemory, role: str, columns: Tensor) -> InMemory:
    """The model, some inputs of the linears of a role unheard."""
    made: dict[str, Tensor] = {}
    for site in sites(model, role):
        made[site.tensor] = model.tensor(site.tensor).clone()
        site.oriented(made[site.tensor])[:, columns] = 0
    return edited(model, made)


PLAIN = ("llama-tied", "gemma2", "phi3", "olmo2", "gpt2", "gpt_neox", "opt", "mixtral", "qwen3_moe")
GONE = torch.tensor([1, 2, 5, 8, 13, 14, 20, 23])


@pytest.mark.parametrize("case", PLAIN)
@pytest.mark.parametrize("criterion", ["activation", "obs"])
def test_channels_that_nobody_hears_go_first_and_cost_nothing(
    case: str, criterion: str, tmp_path: Path
) -> None:
    model = unheard(model_of(case), ".down", GONE)
    width = sites(model, ".down")[0].shape[1]
    use = Ffn(share=len(GONE) / width, multiple=1, criterion=criterion, **FEW)
    assert close(logits(changed(use, model, tmp_path)), logits(model))


@pytest.mark.parametrize("case", PLAIN)
def test_a_cut_model_computes_what_the_masked_one_does(case: str, tmp_path: Path) -> None:
    model = model_of(case)
    use = Ffn(share=0.25, multiple=1, criterion="magnitude", refit=False, **FEW)
    small = changed(use, model, tmp_path)
    masked = dict[str, Tensor]()
    for site in sites(model, ".down"):
        whole, cut = model.weight(site).dense(), small.weight(_same(small, site)).dense()
        kept = [c for c in range(whole.shape[1]) if _has(cut, whole[:, c])]
        gone = [c for c in range(whole.shape[1]) if c not in kept]
        assert len(kept) == cut.shape[1]
        value = masked.setdefault(site.tensor, model.tensor(site.tensor).clone())
        site.oriented(value)[:, gone] = 0
    assert close(logits(small), logits(edited(model, masked)))


def _same(model: InMemory, site: Site) -> Site:
    return next(s for s in sites(model, site.role) if s.module == site.module)


def _has(matrix: Tensor, column: Tensor) -> bool:
    return bool((matrix == column[:, None]).all(0).any())


@pytest.mark.parametrize("case", ["llama-biases", "gemma2", "phi3", "olmo2", "qwen3", "mixtral"])
@pytest.mark.parametrize("head", [0, 1])
def test_heads_that_nobody_hears_go_first_and_cost_nothing(
    case: str, head: int, tmp_path: Path
) -> None:
    model = model_of(case)
    arch = find(model.config).architecture(model.config, model.names())
    size = arch.group * arch.head_dim
    model = unheard(model, "attn.o", torch.arange(head * size, (head + 1) * size))
    if arch.qk_norm == "full":
        pytest.skip("its norm goes over all heads")
    for criterion in ("activation", "obs"):
        use = Heads(keep=1, criterion=criterion, **FEW)
        assert close(logits(changed(use, model, tmp_path)), logits(model))


@pytest.mark.parametrize("case", ["llama-tied", "llama-biases", "gemma2", "phi3", "olmo2", "qwen3"])
def test_channels_of_the_stream_that_are_zero_cost_nothing(case: str, tmp_path: Path) -> None:
    model = model_of(case)
    arch = find(model.config).architecture(model.config, model.names())
    made = {name: model.tensor(name).clone() for name in model.names()}
    for site in (s for s in sites(model, "attn.o", "mlp.down")):
        site.oriented(made[site.tensor])[GONE] = 0
        if site.bias:
            made[f"{site.module}.bias"][GONE] = 0
    made[find(model.config).embed_site(arch).tensor][:, GONE] = 0
    model = edited(model, made)
    use = Hidden(share=0.25, multiple=8, **FEW)
    assert close(logits(changed(use, model, tmp_path)), logits(model), 1e-3)


@pytest.mark.parametrize(
    "case", ["llama-tied", "qwen2-windows", "opt", "gpt_neox", "qwen3_moe-some"]
)
@pytest.mark.parametrize("by", ["kl", "influence"])
def test_a_layer_that_adds_nothing_goes_first_and_costs_nothing(
    case: str, by: str, tmp_path: Path
) -> None:
    model = model_of(case)
    family = find(model.config)
    arch = family.architecture(model.config, model.names())
    made = {}
    for site in (s for s in sites(model, "attn.o", ".down") if s.layer == arch.layers - 1):
        made[site.tensor] = torch.zeros_like(model.tensor(site.tensor))
        if site.bias:
            made[f"{site.module}.bias"] = torch.zeros(site.shape[0])
    model = edited(model, made)
    use: ModelPass = Depth(keep=arch.layers - 1, by=by, **FEW)
    if case in ("qwen2-windows", "qwen3_moe-some"):
        assert "not all alike" in str(use.refuses(model.config))
        use = Depth(layers=(arch.layers - 1,))
    assert close(logits(changed(use, model, tmp_path)), logits(model))


@pytest.mark.parametrize("case", ["llama-biases", "phi3", "olmo2", "qwen3", "gemma2"])
def test_heads_that_are_equal_share_keys_and_values_for_nothing(case: str, tmp_path: Path) -> None:
    model = model_of(case)
    arch = find(model.config).architecture(model.config, model.names())
    rows = arch.kv_heads * arch.head_dim
    made = {name: model.tensor(name).clone() for name in model.names()}
    for site in sites(model, "attn.k", "attn.v", "attn.qkv"):
        own = [made[site.tensor]] + ([made[f"{site.module}.bias"]] if site.bias else [])
        for value in own:
            for start in range(
                len(value) - rows * (2 if "qkv" in site.role else 1), len(value), rows
            ):
                value[start + arch.head_dim : start + rows] = value[start : start + arch.head_dim]
    if arch.qk_norm == "full":
        for name in (n for n in made if n.endswith("k_norm.weight")):
            made[name][arch.head_dim :] = made[name][: arch.head_dim]
    model = edited(model, made)
    assert close(logits(changed(Gqa(heads=1), model, tmp_path)), logits(model))


@pytest.mark.parametrize("case", ["llama-tied", "gpt2", "qwen3_moe"])
def test_the_order_of_channels_does_not_matter(case: str, tmp_path: Path) -> None:
    model = model_of(case)
    made = {name: model.tensor(name).clone() for name in model.names()}
    for site in sites(model, ".up", ".gate", ".down"):
        value, axis = site.oriented(made[site.tensor]), 1 if site.role.endswith("down") else 0
        order = torch.randperm(value.shape[axis], generator=torch.Generator().manual_seed(3))
        value.copy_(value.index_select(axis, order))
        if site.bias and axis == 0:
            made[f"{site.module}.bias"] = made[f"{site.module}.bias"][order]
    turned = edited(model, made)
    assert close(logits(turned), logits(model))
    use = Ffn(share=0.25, multiple=4, **FEW)
    one, other = (changed(use, m, tmp_path) for m in (model, turned))
    assert close(logits(one), logits(other), 1e-3)


@pytest.mark.parametrize("case", ["llama-tied", "phi3", "qwen3", "mixtral", "qwen3_moe"])
def test_a_window_wider_than_the_text_changes_nothing(case: str, tmp_path: Path) -> None:
    model = model_of(case)
    found = changed(Window(tokens=12), model, tmp_path)
    assert close(logits(found), logits(model), 1e-5)
    assert float((logits(changed(Window(tokens=2), model, tmp_path)) - logits(model)).std()) > 0


def test_experts_that_are_never_chosen_go_first(tmp_path: Path) -> None:
    model = model_of("mixtral")
    made = {n: model.tensor(n).clone() for n in model.names()}
    for name in (n for n in made if n.endswith("gate.weight")):
        made[name][[1, 3]] = (
            made[name][[0, 2]] * 0.999
        )  # never better than another, mostly not chosen
    model = edited(model, made)
    _, tensors = outcome(Experts(keep=3, **FEW), model, tmp_path)
    routers = [value for name, value in tensors.items() if name.endswith("gate.weight")]
    assert all(value.shape == (3, 32) for value in routers)


def test_facts_tell_of_every_block(tmp_path: Path) -> None:
    done, _ = outcome(USES["ffn"], model_of("llama-tied"), tmp_path)
    assert list(done.facts) == ["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"]
    for facts in done.facts.values():
        assert facts["output_error"].value <= facts["output_error_plain"].value
        assert facts["kept"].value == 32
