"""The cache's arithmetic against the installed engine's own classes, without a model: to the byte, and to the block."""

import pytest

from llminfra.calc import memory, parallel, tables

pytestmark = pytest.mark.heavy

CARD_BYTES = 150 * 2**30


def specs(m):
    """The engine's description of each layer's cache."""
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec, MLAAttentionSpec, SlidingWindowSpec

    if m["kv_lora_rank"]:
        shape = {"num_kv_heads": 1, "head_size": m["kv_lora_rank"] + m["rope_head_dim"]}
        return [MLAAttentionSpec(block_size=16, dtype=torch.bfloat16, **shape)] * m["layers"]
    shape = {"block_size": 16, "num_kv_heads": m["kv_heads"], "head_size": m["head_dim"], "dtype": torch.bfloat16}
    windowed = [SlidingWindowSpec(**shape, sliding_window=m["window"])] * m["window_layers"]
    return windowed + [FullAttentionSpec(**shape)] * (m["layers"] - m["window_layers"])


def hybrid_specs(m, configuration):
    """The same with linear attention, whose states are padded to the size of a block of tokens."""
    import torch
    from vllm.model_executor.layers.mamba.mamba_utils import MambaStateShapeCalculator
    from vllm.v1.kv_cache_interface import FullAttentionSpec, MambaSpec

    block = configuration.cache_config.block_size
    shape = {"num_kv_heads": m["kv_heads"], "head_size": m["head_dim"], "dtype": torch.bfloat16}
    full = FullAttentionSpec(block_size=block, **shape)
    heads, dim = (m["linear_key_heads"], m["linear_value_heads"]), (m["linear_head_dim"],) * 2
    shapes = MambaStateShapeCalculator.gated_delta_net_state_shape(1, *heads, *dim, m["conv_kernel"])
    state = MambaSpec(
        block_size=block,
        shapes=shapes,
        dtypes=(torch.bfloat16, torch.float32 if m["state_bits"] == 32 else torch.bfloat16),
        page_size_padded=full.page_size_bytes,
        mamba_cache_mode=configuration.cache_config.mamba_cache_mode,
    )
    assert state.state_content_size_bytes == memory.state_bytes(m)
    return [full] * (m["layers"] - m["linear_layers"]) + [state] * m["linear_layers"]


@pytest.fixture(scope="module")
def configuration():
    """The engine's configuration as on a GPU: asynchronous scheduling, so two steps under way."""
    from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig

    from llminfra import models

    limits = {"max_num_seqs": 256, "max_num_batched_tokens": 2048, "max_model_len": 8192}
    made = VllmConfig(
        scheduler_config=SchedulerConfig(**limits, is_encoder_decoder=False),
        model_config=ModelConfig(model=str(models.ready("cpu")), dtype="float32", seed=0, max_model_len=8192),
        cache_config=CacheConfig(block_size=16, gpu_memory_utilization=0.9),
    )
    made.scheduler_config.async_scheduling = True  # the CPU's default is off
    made.cache_config.kv_cache_layout = "NHD"
    assert made.max_in_flight_tokens == memory.IN_FLIGHT * 2048
    return made


HYBRID = [name for name in tables.models() if tables.model(name)["linear_layers"]]


@pytest.mark.parametrize("name", [name for name in tables.models() if name not in HYBRID])
def test_a_block_and_a_request_are_those_of_the_engine(name, configuration):
    from vllm.v1.core.kv_cache_utils import get_kv_cache_configs, get_max_concurrency_for_kv_cache_config

    m = tables.model(name)
    layers = specs(m)
    assert sum(layer.page_size_bytes for layer in layers) == 16 * memory.kv_bytes_per_token(m, "bf16")
    for context in (1000, 4096, 8192):
        configuration.model_config.max_model_len = context
        named = {f"layer {i}": layer for i, layer in enumerate(layers)}
        made = get_kv_cache_configs(configuration, [named], [CARD_BYTES])[0]
        cut = memory.cache_blocks(m, CARD_BYTES, "bf16")
        assert made.num_blocks == cut
        assert len(made.kv_cache_groups) == len(memory.group_windows(m))
        concurrency = get_max_concurrency_for_kv_cache_config(configuration, made)
        assert concurrency == cut / memory.request_blocks(m, context, memory.IN_FLIGHT * 2048)


@pytest.mark.parametrize("tensor_parallel", [1, 2])
@pytest.mark.parametrize("name", HYBRID)
def test_a_hybrids_blocks_and_requests_are_those_of_the_engine(name, tensor_parallel, tmp_path, monkeypatch):
    """The engine aligns its blocks for the model's own configuration, as on a GPU, and then divides a memory."""
    import transformers
    from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
    from vllm.platforms.interface import Platform
    from vllm.v1.attention.backends.flash_attn import FlashAttentionBackend
    from vllm.v1.core.kv_cache_utils import get_kv_cache_configs, get_max_concurrency_for_kv_cache_config

    m = tables.model(name)
    shape = {
        "num_hidden_layers": m["layers"],
        "hidden_size": m["hidden"],
        "num_attention_heads": m["heads"],
        "num_key_value_heads": m["kv_heads"],
        "head_dim": m["head_dim"],
        "linear_num_key_heads": m["linear_key_heads"],
        "linear_num_value_heads": m["linear_value_heads"],
        "max_position_embeddings": m["max_position"],
    }
    # Qwen3.5's own class needs torchvision; it has Qwen3-Next's layers, and its configuration asks for states in 32 bits.
    transformers.Qwen3NextConfig(**shape, architectures=["Qwen3NextForCausalLM"]).save_pretrained(tmp_path)
    made = VllmConfig(
        model_config=ModelConfig(
            model=str(tmp_path), skip_tokenizer_init=True, dtype="bfloat16", seed=0, max_model_len=8192
        ),
        scheduler_config=SchedulerConfig(
            max_num_seqs=256, max_num_batched_tokens=2048, max_model_len=8192, is_encoder_decoder=False
        ),
        cache_config=CacheConfig(block_size=16),
    )
    made.scheduler_config.async_scheduling = True  # the CPU's default is off
    made.cache_config.kv_cache_layout = "NHD"
    made.cache_config.mamba_ssm_cache_dtype = "float32" if m["state_bits"] == 32 else "auto"  # the CPU's is always 32
    assert made.cache_config.mamba_cache_mode == "align"
    monkeypatch.setattr(Platform, "_find_non_ssm_backends", lambda *_: [FlashAttentionBackend])
    made.cache_config.block_size = 16
    made.parallel_config.tensor_parallel_size = tensor_parallel
    Platform._align_hybrid_block_size(made, FlashAttentionBackend)
    block = memory.hybrid_block_tokens(m, "bf16", tensor_parallel)
    assert made.cache_config.block_size == block > 16
    if tensor_parallel > 1:
        return
    layers = hybrid_specs(m, made)
    for context in (1000, 4096, 8192):
        made.model_config.max_model_len = context
        named = {f"layer {i}": layer for i, layer in enumerate(layers)}
        divided = get_kv_cache_configs(made, [named], [CARD_BYTES])[0]
        cut = memory.cache_blocks(m, CARD_BYTES, "bf16", block)
        assert divided.num_blocks == cut
        concurrency = get_max_concurrency_for_kv_cache_config(made, divided)
        assert concurrency == cut / memory.request_blocks(m, context, memory.IN_FLIGHT * 2048, block)


@pytest.mark.parametrize(
    ("gib", "name", "usage"),
    [
        (15, "Tesla T4", 256),
        (79, "NVIDIA A100-SXM4-80GB", 256),
        (79, "NVIDIA H100 80GB HBM3", 1024),
        (179, "NVIDIA B200", 1024),
    ],
)
def test_a_servers_defaults_are_those_of_the_engine(gib, name, usage, monkeypatch):
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext

    monkeypatch.setattr(type(current_platform), "get_device_total_memory", lambda *_: gib * 2**30, raising=False)
    monkeypatch.setattr(type(current_platform), "get_device_name", lambda *_: name, raising=False)
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda *_: False)
    tokens, seqs = EngineArgs.get_batch_defaults(1)
    server = UsageContext.OPENAI_API_SERVER
    card = {"name": name, "title": name, "usable_bytes": gib * 2**30}
    assert memory.server_defaults(card) == (seqs[server], tokens[server]) and seqs[server] == usage


def _configuration(m):
    """A model's configuration for transformers, of the architecture that its record has."""
    import transformers

    shape = {
        "vocab_size": m["vocab"],
        "hidden_size": m["hidden"],
        "intermediate_size": m["intermediate"],
        "num_hidden_layers": m["layers"],
        "num_attention_heads": m["heads"],
        "num_key_value_heads": m["kv_heads"],
        "head_dim": m["head_dim"],
        "tie_word_embeddings": m["tied_embeddings"],
    }
    if m["linear_layers"]:
        linear = {"linear_num_value_heads": m["linear_value_heads"], "linear_num_key_heads": m["linear_key_heads"]}
        experts = {
            "num_experts": m["experts"],
            "moe_intermediate_size": m["expert_intermediate"],
            "shared_expert_intermediate_size": m["shared_intermediate"],
        }
        if m["state_bits"] == 16:
            return transformers.Qwen3NextConfig(**shape, **linear, **experts)
        if m["experts"]:
            return transformers.Qwen3_5MoeTextConfig(**shape, **linear, **experts)
        return transformers.Qwen3_5TextConfig(**shape, **linear)
    if m["name"].startswith("GLM"):
        return transformers.Glm4MoeConfig(
            **shape,
            attention_bias=True,
            n_routed_experts=m["experts"],
            moe_intermediate_size=m["expert_intermediate"],
            first_k_dense_replace=m["dense_layers"],
            use_qk_norm=m["qk_norm_parameters"] > 0,
            num_mtp_layers=0,
        )
    if m["name"].startswith("Kimi"):
        del shape["head_dim"]
        return transformers.DeepseekV3Config(
            **shape,
            n_routed_experts=m["experts"],
            moe_intermediate_size=m["expert_intermediate"],
            first_k_dense_replace=m["dense_layers"],
        )
    if m["name"].startswith("Llama-4"):
        shape.update(intermediate_size=m["expert_intermediate"], intermediate_size_mlp=m["intermediate"])
        step = 2 if m["dense_layers"] else 1
        return transformers.Llama4TextConfig(**shape, num_local_experts=m["experts"], interleave_moe_layer_step=step)
    if m["name"].startswith("MiniMax"):
        return transformers.MiniMaxM2Config(**shape, num_local_experts=m["experts"])
    if m["window"] == 128:
        return transformers.GptOssConfig(**shape, num_local_experts=m["experts"])
    if m["norms_per_layer"] == 4 and m["qk_norm_parameters"]:
        return transformers.Gemma3TextConfig(**shape)
    if m["experts"]:
        experts = {"moe_intermediate_size": m["expert_intermediate"], "num_experts": m["experts"]}
        return transformers.Qwen3MoeConfig(**shape, **experts)
    if m["qk_norm_parameters"]:
        return transformers.Qwen3Config(**shape)
    return transformers.Qwen2Config(**shape) if m["qkv_bias"] else transformers.LlamaConfig(**shape)


@pytest.mark.parametrize(
    "name",
    [
        "Llama-3.2-3B-Instruct",
        "Llama-3.1-405B-Instruct",
        "Qwen1.5-7B-Chat",
        "Qwen2.5-72B-Instruct",
        "Qwen3-4B-Instruct-2507",
        "Qwen3-235B-A22B",
        "Mistral-7B-Instruct-v0.3",
        "Mistral-Small-24B-Instruct-2501",
        "Phi-4-mini-instruct",
        "gemma-3-1b-it",
        "gemma-3-27b-it",
        "gpt-oss-20b",
        "gpt-oss-120b",
        "Qwen3-Next-80B-A3B-Instruct",
        "Qwen3.5-9B",
        "Qwen3.5-35B-A3B",
        "Qwen3.5-397B-A17B",
        "Qwen3-Coder-480B-A35B-Instruct",
        "GLM-4.5-Air",
        "GLM-4.5",
        "Kimi-K2-Instruct",
        "Llama-4-Scout-17B-16E-Instruct",
        "Llama-4-Maverick-17B-128E-Instruct",
        "MiniMax-M2",
    ],
)
def test_parameters_are_those_of_the_model_that_transformers_builds(name):
    import torch
    import transformers

    m = tables.model(name)
    with torch.device("meta"):
        made = transformers.AutoModelForCausalLM.from_config(_configuration(m))
    counts = memory.parameters(m)
    assert sum(p.numel() for p in made.parameters()) == counts["total"] - counts["vision"]
    assert counts["total"] == m["parameters"]


def test_a_pipelines_stages_are_those_of_the_engine():
    from vllm.distributed.utils import get_pp_indices

    for layers in range(1, 97):
        for size in range(1, min(layers, 9)):
            ranges = [get_pp_indices(layers, rank, size) for rank in range(size)]
            assert parallel.stages(layers, size) == [end - start for start, end in ranges]
