"""Any other model of transformers, through its own code: its linears can be read and replaced.

For models without a family here (BERT, T5, ...). The only file of `model` that needs transformers.
No code of the model's folder is run.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch
import transformers
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from whet.base.errors import FolderError, RecipeError, UnsupportedError
from whet.formats.weight import Weight
from whet.model.config import listed
from whet.model.site import Site
from whet.model.source import plain
from whet.store.folder import Folder

NEWER = "A newer transformers may have it: pip install --upgrade transformers"
REFUSALS = (  # what transformers raises at configs and weights that it does not understand
    ValueError, TypeError, KeyError, AttributeError, RuntimeError, ArithmeticError, OSError,
    ImportError,
)  # fmt: skip


@runtime_checkable
class Observer(Protocol):
    """Something that accounts for activations, like `whet.calibrate.statistics.Stats`."""

    def add(self, x: Tensor, /) -> None:
        """Account for some tokens, (tokens, in)."""
        ...


O = TypeVar("O", bound=Observer)  # noqa: E741


class Foreign:
    """A model loaded by the class that its `config.json` names, in float32.

    Law: loading what `save` wrote gives the same outputs, up to the rounding of stored weights.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model, self.dtype = _loaded(path)
        self.model.eval().requires_grad_(requires_grad=False)
        self._linears = {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and name not in self.skipped
        }

    @property
    def skipped(self) -> dict[str, str]:
        """The matrices that are left alone, and why."""
        head, table = self.model.get_output_embeddings(), self.model.get_input_embeddings()
        shared = {id(parameter) for parameter in table.parameters()}
        found: dict[str, str] = {}
        for name, module in self.model.named_modules():
            if module is head:
                found[name] = "the output embedding decides every token"
            elif isinstance(module, nn.Linear) and id(getattr(module, "weight", None)) in shared:
                found[name] = "shares its weight with the input embedding"
            elif isinstance(module, nn.Embedding):
                found[name] = "a table is looked up, not multiplied"
        stacks = (name for name, p in self.model.named_parameters() if p.dim() > 2)
        return found | dict.fromkeys(stacks, "several matrices in one tensor")

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every linear that can be replaced, in the model's own order; its role is its name."""
        return tuple(_site(name, module) for name, module in self._linears.items())

    @property
    def vocab(self) -> int:
        """The number of tokens that the input embedding knows."""
        return int(cast("Tensor", self.model.get_input_embeddings().weight).shape[0])

    def weight(self, name: str) -> Weight:
        """Return the weight of a linear, (out, in)."""
        module = self._linear(name)
        return plain(_site(name, module), module.weight.detach())

    def replace(self, name: str, dense: Float[Tensor, "out in"]) -> None:
        """Give a linear another weight."""
        module = self._linear(name)
        value = dense.T if isinstance(module, Conv1D) else dense
        if value.shape != module.weight.shape:
            raise FolderError(
                f"{name} has shape {tuple(module.weight.shape)}, not {tuple(value.shape)}"
            )
        value = value.to(module.weight.dtype).contiguous()
        module.weight = nn.Parameter(value, requires_grad=False)

    @torch.no_grad()
    def observe(
        self,
        inputs: Iterable[Mapping[str, Tensor]],
        names: Collection[str],
        start: Callable[[int], O],
    ) -> dict[str, O]:
        """Return what was seen at the inputs of some linears while the model ran on `inputs`.

        `start(channels)` makes an observer for one linear, e.g. `lambda n: Stats(kinds, n)`.
        Padding is seen too: give batches without it.
        """
        seen = {name: start(_site(name, self._linear(name)).shape[1]) for name in names}
        hooks = [self._linear(name).register_forward_pre_hook(_sees(o)) for name, o in seen.items()]
        try:
            for batch in inputs:
                self.model(**batch)
        finally:
            for hook in hooks:
                hook.remove()
        return seen

    def inputs(self, ids: Int64[Tensor, "batch time"]) -> dict[str, Tensor]:
        """Return what the model is to be called with to read some tokens."""
        both = {"input_ids": ids}
        return both | {"decoder_input_ids": ids} if self.model.config.is_encoder_decoder else both

    @torch.no_grad()
    def outputs(self, ids: Int64[Tensor, "batch time"]) -> Float[Tensor, "batch *rest"]:
        """Return what the model makes of some tokens: its logits, or else its last hidden states."""
        return self.model(**self.inputs(ids))[0].float()

    def save(self, folder: Path) -> None:
        """Write the model with its replaced weights, in the type that its config names."""
        state = cast("dict[str, Tensor]", self.model.state_dict())
        stored = {k: v.to(self.dtype) if v.is_floating_point() else v for k, v in state.items()}
        self.model.save_pretrained(folder, state_dict=stored)
        self.model.config.dtype = self.dtype  # saving has set it to that of the compute
        self.model.config.save_pretrained(folder)

    def _linear(self, name: str) -> nn.Linear | Conv1D:
        if name in self._linears:
            return self._linears[name]
        why = self.skipped.get(name, "the model has no such linear")
        raise RecipeError(f"{name} cannot be compressed: {why}")


def _loaded(path: Path) -> tuple[PreTrainedModel, torch.dtype]:
    """Return the model in float32 and the type it is stored in; none of its code is run."""
    names = listed(Folder(path).config, "architectures", str) or ("AutoModel",)
    kind: object = getattr(transformers, names[0], None)
    if not isinstance(kind, type) or not issubclass(kind, PreTrainedModel | transformers.AutoModel):
        raise UnsupportedError(
            f"{path} asks for the class {names[0]}, which transformers {transformers.__version__} "
            "does not have",
            NEWER,
        )
    try:
        with _quiet():
            config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
            stored = getattr(config, "dtype", None) or torch.float32
            model = kind.from_pretrained(
                path,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
            )
    except REFUSALS as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnsupportedError(
            f"transformers {transformers.__version__} cannot load {path}: {first[:200]}", NEWER
        ) from error
    return model, stored


@torch.inference_mode()
def first_blocks(
    path: Path, config: Path, ids: Int64[Tensor, "batch time"]
) -> Float[Tensor, "*rest"]:
    """Return the logits of the model of a folder that another `config.json`, of fewer blocks, tells of.

    Only the tensors of those blocks are read. No code of the folder is run.
    """
    with _quiet():
        told = transformers.AutoConfig.from_pretrained(
            config, local_files_only=True, trust_remote_code=False
        )
        model = transformers.AutoModelForCausalLM.from_pretrained(
            path,
            config=told,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
        )
    return model.eval()(input_ids=ids).logits.float()


@contextmanager
def _quiet() -> Generator[None]:
    """Keep transformers from drawing bars and telling what errors tell again."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _site(name: str, module: nn.Linear | Conv1D) -> Site:
    rows, cols = module.weight.shape
    conv = isinstance(module, Conv1D)
    shape = (cols, rows) if conv else (rows, cols)
    bias = "bias" in dict(module.named_parameters(recurse=False))
    layer = next((int(word) for word in name.split(".") if word.isdigit()), None)
    return Site(
        name, name, shape, "out", "in", f"{name}.in", layer=layer, bias=bias, transposed=conv
    )


def _sees(observer: Observer) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        observer.add(args[0].flatten(0, -2).float())

    return hook
