"""Every text architecture of transformers as a tiny model with random weights.

A configuration is made small by the names of its numbers: architectures call the same thing by
few names. What that can't do (numbers that must agree) stands in :data:`MORE`.
"""

import re
from pathlib import Path
from typing import Any

from versatune.data.lengths import text_config
from versatune.modeling.checkpoints import CheckpointRef

SMALL: list[tuple[str, int]] = [
    (r"^(num_)?(hidden_|encoder_|decoder_)?layers$|^n_layers?$|^depth$", 2),
    (r"(num_key_value_heads|kv_n_heads|num_kv_heads|n_head_kv|linear_num_key_heads)$", 2),
    (r"(attention_heads|num_heads|^n_heads?$|n_head$|linear_num_value_heads|index_n_heads)$", 4),
    (r"(head_dim|attention_head_size|kv_channels|rotary_dim)$", 8),
    (r"lora_(rank|dim)", 16),
    (r"(hidden_size|embedding_size|embedding_dim|embed_proj_dim|lru_width|dim_model)$", 32),
    (r"^(d_model|n_embd|dim|emb_dim)$", 32),
    (r"(intermediate_size|intermediate_size_mlp|ffn_dim|n_inner|dim_ff|ffn_hidden_size)$", 64),
    (r"^(d_ff|inner_dim|mlp_hidden_size|expert_hidden_dim)$", 64),
    (r"(num_experts|num_local_experts|n_routed_experts|num_moe_experts)$", 4),
    (r"(experts_per_tok|experts_per_token|moe_k|moe_top_k|top_k_experts|moe_topk|router_topk)$", 2),
    (r"^(n_group|topk_group|first_k_dense_replace|num_dense_layers|mamba_n_groups)$", 1),
    (r"^(n_groups|mamba_ngroups)$", 1),
    (r"(sliding_window|window_size|attention_chunk_size)$", 8),
    (r"(state_size|d_state|mamba_n_heads|mamba_num_heads|mamba_d_head|mamba_headdim)$", 8),
    (r"mamba_d_ssm$", 64),
    (r"(mamba_dt_rank|time_step_rank)$", 4),
    (r"hidden_size_per_layer_input$", 8),
    (r"^(num_kv_shared_layers|num_nextn_predict_layers|num_mtp_layers)$", 0),
    (r"^(max_position_embeddings|n_positions|n_ctx|seq_length|context_length)$", 256),
    (r"^max_(seq_len|sequence_length|seq_length|source_positions|target_positions)$", 256),
    (r"^image_size$", 28),
    (r"^patch_size$", 14),
]
"""What the numbers of a configuration become, by what is found in their names."""

ROPE = {"rope_type": "default", "rope_theta": 1e4}
MORE: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"linear_num_heads": 4, "linear_head_dim": 8},
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": dict.fromkeys(("sliding_attention", "full_attention"), ROPE),
    },
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "gemma3n_text": {"intermediate_size": [64, 64], "activation_sparsity_pattern": [0.0, 0.0]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"linear_num_heads": 4, "linear_head_dim": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"head_dim": 16},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": [8, 24], "axial_pos_shape": [16, 16]},
    "zamba": {
        "layers_block_type": ["mamba", "hybrid", "hybrid"],
        "num_hidden_layers": 3,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "xlstm": {"hidden_size": 128, "embedding_dim": 128, "num_heads": 2},
    "xmod": {"default_language": "en_XX"},
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid"],
        **{"attention_hidden_size": 64, "attention_head_dim": 16},
    },
    "zaya": {"num_experts_per_tok": 1},
}


def architectures() -> list[str]:
    """The kinds of model that AutoModelForCausalLM loads."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(kind: str, tokenizer: Any, **changes: Any) -> Any:
    """The configuration of ``kind`` with two layers and small sizes, for this tokenizer."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    made = CONFIG_MAPPING[kind]
    given = {**_small(made(), tokenizer), **MORE.get(kind, {}), **changes}
    config = made(**given)
    kinds = text_config(config).to_dict().get("layer_types")  # of some architectures it is derived
    if kinds and len(kinds) == 2 and set(kinds) <= {"linear_attention", "conv", "recurrent"}:
        # Two layers of a pattern that has attention further up: a model has some.
        part = given if text_config(config) is config else given["text_config"]
        part["layer_types"] = [kinds[0], "full_attention"]
        config = made(**given)
    return config


def save_architecture(
    kind: str, tokenizer: Any, folder: Path, dtype: str = "float32"
) -> CheckpointRef:
    """A random tiny model of ``kind`` in ``folder``, with weights of a trained model's size."""
    import torch
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(kind, tokenizer)).eval()
    if type(model.config) not in MODEL_FOR_CAUSAL_LM_MAPPING:  # published with its other parts
        model = AutoModelForImageTextToText.from_config(tiny_config(kind, tokenizer)).eval()
    with torch.no_grad():
        model(input_ids=torch.arange(3, 19)[None], use_cache=False)  # numbers that don't fit raise
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight.mul_(3.0)
                if not weight.any():  # scores that are all alike choose experts by chance
                    weight.normal_(std=0.1)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return CheckpointRef.of_folder(folder, name=kind)


def _small(config: Any, tokenizer: Any) -> dict[str, Any]:
    from transformers import PreTrainedConfig

    ids = {f"{which}_token_id": getattr(tokenizer, f"{which}_token_id") for which in _TOKENS}
    ids["decoder_start_token_id"] = tokenizer.bos_token_id
    found: dict[str, Any] = {}
    for key, value in config.to_dict().items():
        if isinstance(value, dict):
            if isinstance(own := getattr(config, key, None), PreTrainedConfig):
                found[key] = _small(own, tokenizer)
        elif key in ids:
            found[key] = ids[key]
        elif isinstance(value, int) and not isinstance(value, bool):
            if re.search(r"(^|_)vocab_size$|^vocab_size_per_layer_input$|^n_token$", key):
                found[key] = len(tokenizer)
            fitting = [small for pattern, small in SMALL if re.search(pattern, key)]
            if fitting:
                found[key] = fitting[0]
    if "kv_lora_rank" in config.to_dict():
        found["num_key_value_heads"] = found["num_attention_heads"]
    return found


_TOKENS = ("bos", "eos", "pad")
