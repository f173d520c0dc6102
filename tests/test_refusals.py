"""What a plan is refused for, against what the installed engine says when it is asked the same."""

import sys
import types

import pytest

from llminfra import models
from llminfra.calc import memory, planner, refusals, tables

pytestmark = pytest.mark.heavy


def folder():
    return str(models.ready("cpu"))


def test_a_context_beyond_the_models():
    from vllm.config import ModelConfig

    m = tables.model("SmolLM2-135M-Instruct")
    said = refusals.anywhere(m, 9000, "fp32")
    with pytest.raises(ValueError) as refused:
        ModelConfig(model=folder(), dtype="float32", seed=0, max_model_len=9000)
    sentence, advice = said.split("); ")
    assert sentence in str(refused.value)
    assert advice.split()[-1] in str(refused.value) and advice.endswith("VLLM_ALLOW_LONG_MAX_MODEL_LEN=1")


def test_heads_that_do_not_divide():
    from vllm.config import ModelConfig, ParallelConfig

    made = ModelConfig(model=folder(), dtype="float32", seed=0, max_model_len=512)
    parallel = ParallelConfig()
    parallel.tensor_parallel_size = 2  # 9 heads
    with pytest.raises(ValueError) as refused:
        made.verify_with_parallel_config(parallel)
    assert str(refused.value) == refusals.anywhere("SmolLM2-135M-Instruct", 512, "fp32", tensor_parallel=2)


def test_fewer_tokens_than_sequences():
    from vllm.config import SchedulerConfig

    with pytest.raises(ValueError) as refused:
        SchedulerConfig(max_num_seqs=256, max_num_batched_tokens=128, max_model_len=64, is_encoder_decoder=False)
    said = refusals.step(256, 128)
    assert said and said in str(refused.value)
    assert refusals.step(128, 128) == ""


def test_limits_of_a_step_that_are_not_given(t4):
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    usual = memory.server_defaults("t4")
    for seqs in (None, 1, 4, 500, 3000):
        for tokens in (None, 100, 4096):
            args = EngineArgs(
                model=folder(), max_num_seqs=seqs, max_num_batched_tokens=tokens, enable_chunked_prefill=True
            )
            asked = types.SimpleNamespace(max_model_len=300, is_multimodal_model=False)
            none = types.SimpleNamespace(use_batched_dp_moe=False)
            args.get_batch_defaults = lambda size: (  # of a T4's server
                {UsageContext.OPENAI_API_SERVER: usual[1]},
                {UsageContext.OPENAI_API_SERVER: usual[0]},
            )
            args._set_default_max_num_seqs_and_batched_tokens_args(UsageContext.OPENAI_API_SERVER, asked, none)
            assert (args.max_num_seqs, args.max_num_batched_tokens) == memory.step_limits("t4", 300, seqs, tokens)


def test_ranks_of_adapters():
    from vllm.config.lora import LoRAConfig

    for rank in range(1, 600):
        said = refusals.anywhere("SmolLM2-135M-Instruct", 64, "fp32", lora_adapters=1, lora_rank=rank)
        try:
            LoRAConfig(max_lora_rank=rank)
            assert said == ""
        except ValueError as error:
            assert said.split(": ")[1] in str(error) and "max_lora_rank" in str(error)
    assert refusals.anywhere("SmolLM2-135M-Instruct", 64, "fp32", lora_rank=7) == "", "no adapters, no rank"


def test_a_method_of_quantization_that_the_engine_dropped():
    from vllm.config import ModelConfig

    with pytest.raises(ValueError) as refused:
        ModelConfig(model=folder(), dtype="float32", seed=0, max_model_len=64, quantization="bitsandbytes")
    said = refusals.anywhere("Qwen3-8B", 64, "nf4")
    assert said.split(" (")[0] in str(refused.value)


@pytest.fixture
def t4(monkeypatch):
    """The engine's CUDA platform, on a card of compute capability 7.5."""
    # The kernels that it loads are not in the CPU's build; none is called here.
    monkeypatch.setitem(sys.modules, "vllm._C_stable_libtorch", types.ModuleType("vllm._C_stable_libtorch"))
    from vllm.platforms.cuda import CudaPlatformBase
    from vllm.platforms.interface import DeviceCapability

    monkeypatch.setattr(CudaPlatformBase, "get_device_capability", classmethod(lambda *_, **__: DeviceCapability(7, 5)))
    monkeypatch.setattr(CudaPlatformBase, "get_device_name", classmethod(lambda *_, **__: "t4"))
    return CudaPlatformBase


def test_bf16_on_a_t4(t4):
    import torch

    with pytest.raises(ValueError) as refused:
        t4.check_if_supports_dtype(torch.bfloat16)
    assert str(refused.value).split(" Your ")[0] in refusals.on("t4", "bf16")


def test_an_fp8_cache_on_a_t4(t4, monkeypatch):
    from vllm.v1.attention.backends import triton_attn

    monkeypatch.setattr(triton_attn, "current_platform", t4)
    monkeypatch.setattr(t4, "is_cuda", classmethod(lambda *_: True))
    with pytest.raises(ValueError) as refused:
        triton_attn.TritonAttentionImpl(8, 64, 1.0, 8, None, None, "fp8")
    said = refusals.on("t4", "fp16", "fp8")
    assert said.split(", and")[0] in str(refused.value)


def test_four_bit_floats_on_a_t4():
    from vllm.model_executor.layers.quantization.mxfp4 import GptOssMxfp4Config

    said = refusals.on("t4", "mxfp4")
    assert f"Minimum capability: {GptOssMxfp4Config.get_min_capability()}." in said
    assert f"The quantization method {GptOssMxfp4Config.get_name()} is not supported" in said
    assert refusals.on("a10g", "mxfp4") == ""


def test_awq_gptq_and_fp8_run_on_all_cards_that_the_table_calls_supported():
    from vllm.model_executor.layers.quantization import get_quantization_config

    least = max(
        get_quantization_config(name).get_min_capability() for name in ("awq", "gptq", "fp8", "compressed-tensors")
    )
    for name in tables.gpus():
        card = tables.gpu(name)
        if not card.get("unsupported"):
            assert int(card["capability"].replace(".", "")) >= least, name


def test_a_plan_raises_what_the_engine_says():
    with pytest.raises(ValueError, match=r"the engine refuses: max_lora_rank: Input should be 1, 8"):
        planner.plan("Qwen3-8B", "l4", "fp16", 4096, 4, lora_adapters=2, lora_rank=12)
    rows = planner.compare("Qwen3-8B", None, 4096, 4, kv_precision="fp8")
    assert [row["gpu"] for row in rows if "FP8 KV cache" in row["why"]] == ["t4"]
