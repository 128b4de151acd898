"""The backbone of a small Llama on a CPU: the numbers of transformers, in fewer passes over memory.

On a CPU a model of a million weights spends more time between its matrix products than in them.
Here scale and norm weights are folded into the products, queries, keys and values are one product,
the prompt's template, which begins every row, is computed once for all rows, and the last layer is
computed only where somebody looks. Same weights, same formulas (Touvron et al. 2023), same
gradients to rounding. B is rows, L tokens of a row, P of their common beginning, S = L - P, H heads
of width D, T positions asked for.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import linear, silu

from alpacafarm_core.train.batches import Padded


def suits(model: Any) -> bool:
    """Whether this module knows the model: a plain Llama in float32 on a CPU, eager attention."""
    configuration = model.config
    if configuration.model_type != "llama" or torch.is_autocast_enabled("cpu"):
        return False
    layers = model.base_model.layers
    first = layers[0].self_attn
    return (
        configuration._attn_implementation == "eager"
        and configuration.num_key_value_heads == configuration.num_attention_heads
        and configuration.rope_parameters["rope_type"] == "default"
        and configuration.hidden_act == "silu"
        and not (configuration.attention_bias or configuration.mlp_bias)
        and not configuration.attention_dropout
        and all(_is_plain(layer) for layer in layers)
        and not hasattr(first.q_proj.weight, "ds_id")  # DeepSpeed may keep it elsewhere
        and (first.q_proj.weight.device.type, first.q_proj.weight.dtype) == ("cpu", torch.float32)
    )


def _is_plain(layer: Any) -> bool:
    """Whether a layer has no adapters and is computed once, as transformers computes it."""
    projections = (*layer.self_attn.children(), *layer.mlp.children())
    linear = all(type(each) is nn.Linear for each in projections if hasattr(each, "weight"))
    return linear and "forward" not in vars(layer)


def hidden_at(model: Any, batch: Padded, rows: Tensor, at: Tensor) -> Tensor:
    """The last layer's hidden states at positions `at` [T] of rows `rows` [T], as [T, width]."""
    backbone, laid = model.base_model, _laid(model, batch)
    epsilon = model.config.rms_norm_eps
    states: Tensor = backbone.embed_tokens(laid.ids)
    asked = torch.where(at < laid.common, at, laid.places[rows, at - laid.common])
    for layer in backbone.layers:
        seen = _attention(layer, _unit(states, epsilon), laid)
        if layer is backbone.layers[-1]:
            seen, states = seen[asked], states[asked]
        states = torch.addmm(states, seen, layer.self_attn.o_proj.weight.t())
        gates = linear(_unit(states, epsilon), _gates(layer))
        states = torch.addmm(states, _gated(gates), layer.mlp.down_proj.weight.t())
    states = _unit(states, epsilon) * backbone.norm.weight
    return states


class _Laid(NamedTuple):
    """A batch end to end without padding: the common beginning once, then the rest of each row.

    `ids` [K]; `kept` [K - P] are the places of the rest in B·S, and `places` [B, S] where each
    of those is in `ids`. `first` [P, D/2] and `rest` [1 or B, 1, S, D/2] are the turns of the
    rotary embedding; `before` [P, P] and `mask` [.., S, L] are added to the scores.
    """

    ids: Tensor
    common: int
    kept: Tensor
    places: Tensor
    shape: tuple[int, int, int, int]
    first: Tensor
    rest: Tensor
    before: Tensor
    mask: Tensor


def _laid(model: Any, batch: Padded) -> _Laid:
    ids, beginning = batch.ids, common(batch)
    length, heads = ids.shape[1], model.config.num_attention_heads
    positions = torch.arange(length)[None] if batch.positions is None else batch.positions
    angles = positions[..., None].float() * model.base_model.rotary_emb.inv_freq
    turns = torch.polar(torch.ones_like(angles), angles)
    ahead = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)
    ends = torch.zeros(len(ids), dtype=torch.long).scatter_reduce(0, batch.rows, batch.last, "amax")
    real = torch.arange(beginning, length) <= ends[:, None]
    return _Laid(
        ids=torch.cat([ids[0, :beginning], ids[:, beginning:][real]]),
        common=beginning,
        kept=real.flatten().nonzero()[:, 0],
        places=(real.flatten().cumsum(0) - 1).clamp(min=0).view_as(real) + beginning,
        shape=(len(ids), length - beginning, heads, model.config.head_dim),
        first=turns[0, :beginning],
        rest=turns[:, None, beginning:],
        before=ahead[:beginning, :beginning],
        mask=(ahead if batch.attention is None else batch.attention)[..., beginning:, :],
    )


def common(batch: Padded) -> int:
    """Tokens with which every row begins, at most those of the shortest prompt."""
    differs = (batch.ids != batch.ids[:1]).any(0)
    first = int(differs.int().argmax()) if bool(differs.any()) else batch.ids.shape[1]
    return min(first, int(batch.where[:, 0].min()) + 1)


def _attention(layer: Any, states: Tensor, laid: _Laid) -> Tensor:
    """What each token sees of those before it, [K, H·D], before the output projection."""
    (rows, rest, heads, width), common = laid.shape, laid.common
    every = linear(states, _queries_keys_values(layer, heads, width))
    shared, own = torch.split(every, [common, len(laid.kept)])
    own = _spread(own, laid.kept, rows * rest)
    q, k, v = own.view(rows, rest, 3, heads, width).permute(2, 0, 3, 1, 4).unbind()
    q, k = _turned(q, laid.rest), _turned(k, laid.rest)
    if not common:
        return _gathered(_merged(_attended(q, k, v, laid.mask)), laid.kept)
    first = shared.view(common, 3, heads, width).permute(1, 2, 0, 3)[:, None]
    first_q, first_k, first_v = first.unbind()
    first_q, first_k = _turned(first_q, laid.first), _turned(first_k, laid.first)
    keys = torch.cat([first_k.expand(rows, -1, -1, -1), k], 2)
    values = torch.cat([first_v.expand(rows, -1, -1, -1), v], 2)
    alone = _attended(first_q, first_k, first_v, laid.before)
    seen = _merged(_attended(q, keys, values, laid.mask))
    return torch.cat([_merged(alone), _gathered(seen, laid.kept)])


def _merged(seen: Tensor) -> Tensor:
    """[B, H, S, D] to [B·S, H·D]."""
    return seen.transpose(1, 2).reshape(seen.shape[0] * seen.shape[2], -1)


def _turned(states: Tensor, turns: Tensor) -> Tensor:
    """Rotary embedding of queries or keys whose halves are interleaved, [.., S, D]."""
    pairs = torch.view_as_complex(states.contiguous().view(*states.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)


def _queries_keys_values(layer: Any, heads: int, width: int) -> Tensor:
    """One matrix [3·H·D, width]; scale and norm folded in, halves of queries and keys interleaved.

    Interleaving both alike changes no score between them.
    """
    attention = layer.self_attn
    halves = torch.arange(width).view(2, -1).t().flatten()
    order = (torch.arange(heads)[:, None] * width + halves).flatten()
    queries = attention.q_proj.weight[order] * attention.scaling
    keys = attention.k_proj.weight[order]
    every = torch.cat([queries, keys, attention.v_proj.weight])
    return every.mul(layer.input_layernorm.weight)


def _gates(layer: Any) -> Tensor:
    """Gate and up projection in one matrix, the norm's weights folded in."""
    both = torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight])
    return both.mul(layer.post_attention_layernorm.weight)


class _Spread(Function):
    """Rows [K, ..] to their places of `size`; zeros elsewhere."""

    @staticmethod
    def forward(context: Any, states: Tensor, kept: Tensor, size: int) -> Tensor:
        context.save_for_backward(kept)
        return states.new_zeros(size, states.shape[1]).index_copy_(0, kept, states)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.index_select(0, *context.saved_tensors), None, None


class _Gathered(Function):
    """Rows at these places; each at most once."""

    @staticmethod
    def forward(context: Any, states: Tensor, kept: Tensor) -> Tensor:
        context.size = len(states)
        context.save_for_backward(kept)
        return states.index_select(0, kept)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = context.saved_tensors
        return gradient.new_zeros(context.size, gradient.shape[1]).index_copy_(
            0, kept, gradient
        ), None


class _Unit(Function):
    """Rows divided by their root mean square, [T, width]: RMSNorm without its weights."""

    @staticmethod
    def forward(context: Any, states: Tensor, epsilon: float) -> Tensor:
        norms = torch.linalg.vector_norm(states, dim=1, keepdim=True)
        inverse = norms.square_().div_(states.shape[1]).add_(epsilon).rsqrt_()
        units: Tensor = states * inverse
        context.save_for_backward(units, inverse)
        return units

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        units, inverse = context.saved_tensors
        along = torch.linalg.vecdot(gradient, units)[:, None].div_(-units.shape[1])
        return torch.addcmul(gradient, units, along).mul_(inverse), None


class _Gated(Function):
    """SwiGLU of gate and up side by side, [T, 2·width] to [T, width]."""

    @staticmethod
    def forward(context: Any, both: Tensor) -> Tensor:
        context.save_for_backward(both)
        gate, up = both.chunk(2, 1)
        found: Tensor = silu(gate).mul_(up)
        return found

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (both,) = context.saved_tensors
        gate, up = both.chunk(2, 1)
        found = torch.empty_like(both)
        for_gate, for_up = found.chunk(2, 1)
        torch.mul(gradient, silu(gate), out=for_up)
        torch.ops.aten.silu_backward.grad_input(gradient * up, gate, grad_input=for_gate)
        return found


class _Attended(Function):
    """Attention of queries [B, H, S, D], already scaled, to keys and values [B, H, L, D].

    The mask [.., S, L] is added to the scores.
    """

    @staticmethod
    def forward(context: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        weights = (q @ k.transpose(2, 3)).add_(mask).softmax(-1)
        context.save_for_backward(q, k, v, weights)
        return weights @ v

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, weights = context.saved_tensors
        away = gradient @ v.transpose(2, 3)
        scores = torch.ops.aten._softmax_backward_data(away, weights, -1, away.dtype)
        return (
            scores @ k,
            scores.transpose(2, 3) @ q,
            weights.transpose(2, 3) @ gradient,
            None,
        )


_unit: Callable[[Tensor, float], Tensor] = _Unit.apply
_spread: Callable[[Tensor, Tensor, int], Tensor] = _Spread.apply
_gathered: Callable[[Tensor, Tensor], Tensor] = _Gathered.apply
_gated: Callable[[Tensor], Tensor] = _Gated.apply
_attended: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = _Attended.apply
