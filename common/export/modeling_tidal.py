"""Tidal's language model for `transformers`: the remote-code file of an exported folder. It does not import Tidal.

    from transformers import AutoModelForCausalLM, AutoTokenizer
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    inputs = tokenizer(["Once upon a time", "The cat"], return_tensors="pt", padding=True)
    model.generate(**inputs, max_new_tokens=50, modulation=0.3)

The model is a pre-norm transformer; the configuration names its norm and activation. Gates, if it has any, scale its
residual branches; their input is one number, the modulation m in [0, 1]. Without m the gates have no effect (scale
exactly 1). `generate` processes the prompt without modulation and applies m to every generated token, as Tidal does. It
does not derive temperature, top-k and penalty from m. The weights have the names of Tidal's `.pth` files. Positions
beyond the context are an error, and attention weights are not returned.
"""
# SPDX-License-Identifier: Apache-2.0

import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel, __version__
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import logging

logger = logging.get_logger(__name__)


class TidalConfig(PretrainedConfig):
    """The configuration of the model. `gates_trained` is True if the gates were trained with modulation.

    The defaults of norm, embedding_norm, qk_norm, activation, bias, gates and logit_softcap are the reference
    architecture.
    """

    model_type = "tidal"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        vocab_size=50257,
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=1024,
        max_position_embeddings=256,
        gate_dim=1,
        gate_hidden_dim=32,
        dropout=0.1,
        rope_theta=10000.0,
        layer_norm_eps=1e-5,
        rms_norm_eps=1e-6,
        norm="layernorm",
        embedding_norm=False,
        qk_norm=False,
        activation="gelu",
        bias=True,
        gates=True,
        logit_softcap=None,
        gates_trained=False,
        use_cache=True,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.gate_dim = gate_dim
        self.gate_hidden_dim = gate_hidden_dim
        self.dropout = dropout
        self.rope_theta = rope_theta
        self.layer_norm_eps = layer_norm_eps
        self.rms_norm_eps = rms_norm_eps
        self.norm = norm
        self.embedding_norm = embedding_norm
        self.qk_norm = qk_norm
        self.activation = activation
        self.bias = bias
        self.gates = gates
        self.logit_softcap = logit_softcap
        self.gates_trained = gates_trained
        self.use_cache = use_cache
        super().__init__(**{"tie_word_embeddings": False, **kwargs})


def rotary_tables(positions, width, theta):
    """Return cos and sin, each (positions, width) float32; both halves of a row have the same frequencies."""
    frequencies = 1.0 / (theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width))
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """Rotate x (B, H, T, K) by tables (B, 1, T, K)."""
    a, b = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-b, a), dim=-1) * sin).type_as(x)


class TidalRMSNorm(nn.Module):
    """Divides x (…, D) by the root mean square of its last dimension."""

    def __init__(self, config):
        super().__init__()
        self.eps = config.rms_norm_eps

    def forward(self, x):
        exact = x.float()
        return (exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + self.eps)).type_as(x)


class TidalReLUSquared(nn.Module):
    """Computes max(x, 0)²."""

    def forward(self, x):
        return torch.relu(x).square()


def new_norm(config):
    """Return the norm of states (…, D) that the configuration names."""
    if config.norm == "rmsnorm":
        return TidalRMSNorm(config)
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class TidalGate(nn.Module):
    """Multiplies x (B, T, D) by sigmoid(MLP(m)) for m (B, 1 or T, gate_dim)."""

    def __init__(self, config):
        super().__init__()
        hidden = config.gate_hidden_dim
        self.net = nn.Sequential(nn.Linear(config.gate_dim, hidden), nn.GELU(), nn.Linear(hidden, config.hidden_size))

    def forward(self, x, modulation):
        return (x * torch.sigmoid(self.net(modulation))).type_as(x)


class TidalBlock(nn.Module):
    """Computes x + gate(attention(ln1(x))), then x + gate(ffn(ln2(x)))."""

    def __init__(self, config, layer):
        super().__init__()
        D, bias = config.hidden_size, config.bias
        self.layer = layer
        self.num_heads = config.num_attention_heads
        self.dropout_p = config.dropout
        self.q_proj = nn.Linear(D, D, bias=bias)
        self.k_proj = nn.Linear(D, D, bias=bias)
        self.v_proj = nn.Linear(D, D, bias=bias)
        self.out_proj = nn.Linear(D, D, bias=bias)
        self.ffn = nn.Sequential(
            nn.Linear(D, config.intermediate_size, bias=bias),
            TidalReLUSquared() if config.activation == "relu2" else nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.intermediate_size, D, bias=bias),
            nn.Dropout(config.dropout),
        )
        self.ln1 = new_norm(config)
        self.ln2 = new_norm(config)
        self.qk_norm = TidalRMSNorm(config) if config.qk_norm else nn.Identity()
        if config.gates:
            self.attn_gate = TidalGate(config)
            self.ffn_gate = TidalGate(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, cos, sin, mask, modulation, cache, total):
        """Return the output (B, T, D) for x (B, T, D). `total` is T plus the number of cached positions.

        `mask` is (B, 1, T, total) bool; None means plain causal attention. `cache` may be None.
        """
        B, T, D = x.shape
        h = self.ln1(x)
        projected = (self.q_proj(h), self.k_proj(h), self.v_proj(h))
        q, k, v = (
            projection.view(B, T, self.num_heads, D // self.num_heads).transpose(1, 2) for projection in projected
        )
        q, k = self.qk_norm(rotate(q, cos, sin)), self.qk_norm(rotate(k, cos, sin))
        if cache is not None:
            positions = torch.arange(total - T, total, device=x.device)  # transformers 4 needs the positions
            k, v = cache.update(k, v, self.layer, {"cache_position": positions})
            k, v = k[:, :, :total], v[:, :, :total]  # a static cache also returns positions that are still unused
        dropout_p = self.dropout_p if self.training else 0.0
        attended = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p, is_causal=mask is None)
        y = self.out_proj(attended.transpose(1, 2).reshape(B, T, D))
        x = x + self.dropout(y if modulation is None else self.attn_gate(y, modulation))
        y = self.ffn(self.ln2(x))
        return x + self.dropout(y if modulation is None else self.ffn_gate(y, modulation))


class TidalForCausalLM(PreTrainedModel, GenerationMixin):
    """The language model with its output head. The module's docstring has an example."""

    config_class = TidalConfig
    base_model_prefix = ""
    _no_split_modules = ["TidalBlock"]
    _supports_cache_class = True
    _supports_sdpa = True
    # The rotary tables stay float32, because bfloat16 has only 8 significant bits. Transformers 4 does not accept
    # buffers in this list.
    _keep_in_fp32_modules_strict = ["rope_cos", "rope_sin"] if int(__version__.split(".")[0]) >= 5 else None

    def __init__(self, config):
        super().__init__(config)
        width = config.hidden_size // config.num_attention_heads
        cos, sin = rotary_tables(config.max_position_embeddings, width, config.rope_theta)
        self.register_buffer("rope_cos", cos)
        self.register_buffer("rope_sin", sin)
        self.token_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer_blocks = nn.ModuleList(TidalBlock(config, n) for n in range(config.num_hidden_layers))
        self.embedding_norm = TidalRMSNorm(config) if config.embedding_norm else nn.Identity()
        self.final_layer_norm = new_norm(config)
        self.output_projection = nn.Linear(config.hidden_size, config.vocab_size, bias=config.bias)
        self.post_init()

    def _init_weights(self, module):
        """Initialise the weights of a new model as Tidal does."""
        if isinstance(module, nn.Embedding) or module is self.output_projection:
            nn.init.normal_(module.get_parameter("weight"), std=0.02)
        if module is self.output_projection and self.config.bias:
            nn.init.zeros_(module.get_parameter("bias"))
        if isinstance(module, TidalGate):
            nn.init.zeros_(module.get_parameter("net.2.weight"))
            nn.init.constant_(module.get_parameter("net.2.bias"), 2.0)

    def get_input_embeddings(self):
        return self.token_embeddings

    def set_input_embeddings(self, value):
        self.token_embeddings = value

    def get_output_embeddings(self):
        return self.output_projection

    def set_output_embeddings(self, new_embeddings):
        self.output_projection = new_embeddings

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        modulation=None,
        use_cache=None,
        output_hidden_states=None,
        return_dict=None,
        logits_to_keep=0,
        num_items_in_batch=None,
        **kwargs,
    ):
        """Return the logits (B, T, V) of input_ids (B, T).

        attention_mask (B, past + T) is 0 for padding, on either side. modulation is a number, (B,), (B, 1), or (B, T)
        for one m per position; None means no gating. With labels (B, T), where −100 is ignored, the output has the
        mean cross-entropy of the next token as `loss`. Raises ValueError beyond the context.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, not both")
        use_cache = (self.config.use_cache and not self.training) if use_cache is None else use_cache
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        x = self.token_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        B, T, _ = x.shape
        past = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        total = past + T
        if position_ids is None:
            position_ids = self._positions(attention_mask, past, T, x.device)
        self._check_context(position_ids, total, attention_mask)
        cos, sin = self.rope_cos[position_ids].unsqueeze(1), self.rope_sin[position_ids].unsqueeze(1)
        mask = self._mask(attention_mask, B, past, T, x.device)
        m = self._modulation(modulation, B, T, x)
        states = [x]
        x = self.dropout(self.embedding_norm(x))
        for block in self.transformer_blocks:
            x = block(x, cos, sin, mask, m, past_key_values, total)
            states.append(x)
        x = self.final_layer_norm(x)
        if isinstance(logits_to_keep, int):
            kept = x[:, -logits_to_keep:] if logits_to_keep > 0 else x
        else:
            kept = x[:, logits_to_keep]
        logits = self.output_projection(kept)
        if self.config.logit_softcap is not None:
            logits = self.config.logit_softcap * torch.tanh(logits / self.config.logit_softcap)
        loss = None if labels is None else self._loss(logits, labels, num_items_in_batch)
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=past_key_values if use_cache else None,
            hidden_states=(*states[:-1], x) if output_hidden_states else None,
        )
        return output.to_tuple() if return_dict is False else output

    def prepare_inputs_for_generation(
        self,
        input_ids,
        past_key_values=None,
        attention_mask=None,
        inputs_embeds=None,
        modulation=None,
        use_cache=True,
        **kwargs,
    ):
        """Return the inputs that are not yet in the cache. Modulation applies to all tokens after the prompt."""
        past = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        if modulation is not None and not use_cache:
            raise ValueError("generate with modulation stores the m of each token in the cache; set use_cache=True")
        inputs = {
            "attention_mask": attention_mask,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            "modulation": modulation if past > 0 else None,
            "logits_to_keep": kwargs.get("logits_to_keep") or 1,
        }
        if inputs_embeds is not None and past == 0:
            return {"inputs_embeds": inputs_embeds, **inputs}
        if attention_mask is not None and attention_mask.shape[1] > input_ids.shape[1]:
            # The cache begins with embeddings, or with tokens of an earlier call, which input_ids does not contain.
            # Therefore the number of new tokens follows from the length of the attention mask.
            new = max(attention_mask.shape[1] - past, 1)
        else:
            new = max(input_ids.shape[1] - past, 1)
        return {"input_ids": input_ids[:, -new:].contiguous(), **inputs}

    def _positions(self, attention_mask, past, T, device):
        if attention_mask is None:
            return torch.arange(past, past + T, device=device).unsqueeze(0)
        counted = attention_mask.long().cumsum(-1) - 1
        return counted.clamp(min=0)[:, -T:]

    def _check_context(self, position_ids, total, attention_mask):
        limit = self.rope_cos.shape[0]
        # `total` includes padding. If it exceeds the limit, rows with padding may still fit into the context. Only the
        # positions show whether they do, and reading the positions makes the host wait for the device.
        if total > limit and (attention_mask is None or int(position_ids.max()) >= limit):
            raise ValueError(
                f"{total} tokens do not fit into the model's context of {limit}; "
                "shorten the prompt, or request fewer new tokens"
            )

    def _mask(self, attention_mask, B, past, T, device):
        if attention_mask is None and past == 0:
            return None
        keys = torch.arange(past + T, device=device)
        queries = keys[past:, None]
        mask = (keys <= queries)[None, None]
        if attention_mask is not None:
            # A padded query attends to itself, so that no row of the softmax is empty; its result is not used.
            mask = mask & attention_mask[:, None, None, -(past + T) :].bool() | (keys == queries)
        return mask.expand(B, 1, T, past + T)

    def _modulation(self, modulation, B, T, x):
        if modulation is None:
            return None
        if not self.config.gates:
            raise ValueError("this model has no gates; leave out modulation")
        if not self.config.gates_trained:
            logger.warning_once(
                "the gates of this model were not trained with modulation; Tidal's engine would not use modulation"
            )
        m = torch.as_tensor(modulation, dtype=self.token_embeddings.weight.dtype, device=x.device)
        if m.dim() < 2:
            m = m.reshape(-1, 1)
        if m.dim() != 2 or m.shape[0] not in (1, B) or m.shape[1] not in (1, T):
            raise ValueError(f"modulation has shape {tuple(m.shape)}; give a number, ({B},), ({B}, 1) or ({B}, {T})")
        return m.expand(B, m.shape[1]).unsqueeze(-1).expand(-1, -1, self.config.gate_dim)

    def _loss(self, logits, labels, num_items_in_batch):
        if logits.shape[1] != labels.shape[1]:
            raise ValueError(f"labels have {labels.shape[1]} positions, the logits {logits.shape[1]}")
        summed = num_items_in_batch is not None
        loss = cross_entropy(
            logits[:, :-1].reshape(-1, logits.shape[-1]).float(),
            labels[:, 1:].reshape(-1).to(logits.device),
            ignore_index=-100,
            reduction="sum" if summed else "mean",
        )
        return loss / num_items_in_batch if summed else loss
