"""Experts with weights of their own, in place of those that transformers joins in one tensor."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

NAMES: Sequence[tuple[str, str, str]] = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"))


class Experts(nn.ModuleDict):
    """A block's experts by number; computes what the joined ones of Mixtral and Qwen compute."""

    def __init__(
        self,
        count: int,
        names: tuple[str, str, str],
        shapes: tuple[int, int],
        act_fn: Callable[[Tensor], Tensor],
        dtype: torch.dtype,
    ) -> None:
        hidden, ffn = shapes
        super().__init__({str(i): _expert(names, hidden, ffn, dtype) for i in range(count)})
        self.num_experts, self.names, self.act_fn = count, names, act_fn

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Return the weighted sum of what each token's experts answer."""
        total = torch.zeros_like(hidden_states)
        for number in top_k_index.unique().tolist():
            if number < self.num_experts:
                token, rank = torch.where(top_k_index == number)
                answer = self._answer(self[str(number)], hidden_states[token])
                answer = answer * top_k_weights[token, rank, None]
                total.index_add_(0, token, answer.to(total.dtype))
        return total

    def _answer(self, expert: nn.Module, x: Tensor) -> Tensor:
        gate, up, down = (expert.get_submodule(name) for name in self.names)
        return down(self.act_fn(gate(x)) * up(x))


def _expert(
    names: tuple[str, str, str], hidden: int, ffn: int, dtype: torch.dtype
) -> nn.ModuleDict:
    gate, up, down = names
    sizes: Mapping[str, tuple[int, int]] = {
        gate: (hidden, ffn),
        up: (hidden, ffn),
        down: (ffn, hidden),
    }
    return nn.ModuleDict(
        {
            name: nn.Linear(*size, bias=False, device="meta", dtype=dtype)
            for name, size in sizes.items()
        }
    )


def is_joined(module: nn.Module) -> bool:
    """Say whether a module holds all experts of a block in two tensors."""
    return isinstance(getattr(module, "gate_up_proj", None), nn.Parameter) and isinstance(
        getattr(module, "down_proj", None), nn.Parameter
    )


def apart(module: nn.Module, names: tuple[str, str, str]) -> Experts:
    """Return empty experts of the same sizes, each apart."""
    down = module.down_proj
    assert isinstance(down, nn.Parameter)
    count, hidden, ffn = down.shape
    return Experts(count, names, (hidden, ffn), module.act_fn, down.dtype)  # pyright: ignore[reportArgumentType] (transformers names it so)
