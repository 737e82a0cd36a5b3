"""Bare names that --model takes, and where they lie on the hub. Any other model is given by its hub id."""

from __future__ import annotations

HUB_IDS = {
    hub_id.split("/")[1]: hub_id
    for hub_id in (
        "Qwen/Qwen3-30B-A3B",
        "Qwen/Qwen3-30B-A3B-Base",
        "Qwen/Qwen3-30B-A3B-Instruct-2507",
        "Qwen/Qwen3-235B-A22B",
        "Qwen/Qwen3-Coder-30B-A3B-Instruct",
        "Qwen/Qwen3-Next-80B-A3B-Instruct",
        "Qwen/Qwen3-VL-30B-A3B-Instruct",
        "Qwen/Qwen1.5-MoE-A2.7B",
        "Qwen/Qwen2-57B-A14B",
        "mistralai/Mixtral-8x7B-v0.1",
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "mistralai/Mixtral-8x22B-v0.1",
        "openai/gpt-oss-20b",
        "openai/gpt-oss-120b",
        "allenai/OLMoE-1B-7B-0924",
        "allenai/OLMoE-1B-7B-0125",
        "deepseek-ai/deepseek-moe-16b-base",
        "deepseek-ai/DeepSeek-V2-Lite",
        "deepseek-ai/DeepSeek-V2",
        "deepseek-ai/DeepSeek-V3",
        "deepseek-ai/DeepSeek-V3-0324",
        "deepseek-ai/DeepSeek-R1",
        "moonshotai/Kimi-K2-Instruct",
        "moonshotai/Moonlight-16B-A3B",
        "zai-org/GLM-4.5-Air",
        "zai-org/GLM-4.5",
        "microsoft/Phi-3.5-MoE-instruct",
        "ibm-granite/granite-3.1-3b-a800m-base",
        "meta-llama/Llama-4-Scout-17B-16E",
        "inclusionAI/Ling-lite",
        "baidu/ERNIE-4.5-21B-A3B-PT",
        "rednote-hilab/dots.llm1.base",
        "tencent/Hunyuan-A13B-Instruct",
        "MiniMaxAI/MiniMax-M2",
    )
}
