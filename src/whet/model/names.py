"""The names that most decoders give to their modules. Needs no torch."""

ATTENTION = {
    "attn.q": "{p}layers.{i}.self_attn.q_proj",
    "attn.k": "{p}layers.{i}.self_attn.k_proj",
    "attn.v": "{p}layers.{i}.self_attn.v_proj",
    "attn.o": "{p}layers.{i}.self_attn.o_proj",
}
MLP = {
    "mlp.gate": "{p}layers.{i}.mlp.gate_proj",
    "mlp.up": "{p}layers.{i}.mlp.up_proj",
    "mlp.down": "{p}layers.{i}.mlp.down_proj",
}
ENDS = {"embed": "{p}embed_tokens", "norm": "{p}norm", "head": "lm_head"}
NORMS = {
    "attn.pre": "{p}layers.{i}.input_layernorm",
    "mlp.pre": "{p}layers.{i}.post_attention_layernorm",
}
QK_NORMS = {
    "attn.q.norm": "{p}layers.{i}.self_attn.q_norm",
    "attn.k.norm": "{p}layers.{i}.self_attn.k_norm",
}
DECODER = ENDS | ATTENTION | MLP | NORMS
