"""vLLM's Prometheus metrics: names, help, labels, buckets and order as a real 0.32.0 exposes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from mock_vllm.prefix_cache import BLOCK_SIZE
from mock_vllm.settings import Settings

CONTENT_TYPE = CONTENT_TYPE_LATEST

FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")

_FIRST_TOKEN = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
_PER_TOKEN = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
_PER_REQUEST = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
)  # fmt: skip
_PER_ITERATION = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_PREEMPTIONS = (1, 2, 3, 4, 5, 10, 20)
_CHOICES = (1, 2, 5, 10, 20)

_CACHE_SOURCES = ("device", "host", "p2p", "disk", "external_unspecified")


def token_buckets(max_model_len: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... up to the context length: vLLM's buckets for token counts."""
    steps = (digit * 10**power for power in range(len(str(max_model_len))) for digit in (1, 2, 5))
    return [step for step in steps if step <= max_model_len]


class EngineMetrics:
    """One attribute per metric that the mock moves; the others are there and stay at rest."""

    def __init__(self, settings: Settings, cache_blocks: int, kv_cache_usage: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        GCCollector(self._registry)
        PlatformCollector(self._registry)
        ProcessCollector(registry=self._registry)
        self._labels = {"engine": "0", "model_name": settings.model_name}
        tokens = token_buckets(settings.max_model_len)

        for what, verb in (("flops", ""), ("read_bytes", "read from"), ("write_bytes", "written to")):
            amount = f"bytes {verb} memory" if verb else "floating point operations"
            self._counter(
                f"estimated_{what}_per_gpu",
                f"Estimated number of {amount} per GPU (for Model Flops Utilization calculations).",
            )
        self.running = self._gauge("num_requests_running", "Number of requests in model execution batches.")
        self.waiting = self._gauge("num_requests_waiting", "Number of requests waiting to be processed.")
        self.waiting_by_reason = self._gauges(
            "num_requests_waiting_by_reason",
            "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling capacity; "
            "'deferred' = deferred by transient constraints (LoRA budget, KV transfer, blocked status). "
            "Sum of all reasons equals vllm:num_requests_waiting.",
            "reason",
            ("capacity", "deferred"),
        )
        self._gauges(
            "engine_sleep_state",
            "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; "
            "weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.",
            "sleep_state",
            ("awake", "weights_offloaded", "discard_all"),
        )["awake"].set(1)
        self._gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.").set_function(kv_cache_usage)
        self.prefix_queries = self._counter(
            "prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens."
        )
        self.prefix_hits = self._counter("prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.")
        for name, what in (("queries", "queried"), ("hits", "cached")):
            self._counter(
                f"external_prefix_cache_{name}",
                f"External prefix cache {name} from KV connector cross-instance cache sharing, "
                f"in terms of number of {what} tokens.",
            )
        for name, what in (("queries", "queried"), ("hits", "cached")):
            self._counter(f"mm_cache_{name}", f"Multi-modal cache {name}, in terms of number of {what} items.")
        self._counter("num_preemptions", "Cumulative number of preemption from the engine.")
        self.prompt_tokens = self._counter("prompt_tokens", "Number of prefill tokens processed.")
        self.prompt_tokens_by_source = self._counters(
            "prompt_tokens_by_source",
            "Number of prompt tokens by source.",
            "source",
            ("local_compute", "local_cache_hit", "external_kv_transfer"),
        )
        self.prompt_tokens_cached = self._counter(
            "prompt_tokens_cached", "Number of cached prompt tokens (local + external)."
        )
        self.prompt_tokens_cached_by_source = self._counters(
            "prompt_tokens_cached_by_source",
            "Prefix-cache hit tokens by the cache tier that supplied them: device (local HBM), host (offloaded to "
            "DRAM), disk, p2p (transferred from another vLLM instance) or external_unspecified. Counted at "
            "admission; sums to vllm:prefix_cache_hits + vllm:external_prefix_cache_hits.",
            "source",
            _CACHE_SOURCES,
        )
        self.generation_tokens = self._counter("generation_tokens", "Number of generation tokens processed.")
        self.request_success = self._counters(
            "request_success",
            "Count of successfully processed requests.",
            "finished_reason",
            FINISHED_REASONS,
        )
        self.admission_rejections = self._rejections(settings.model_name)
        self.request_prompt_tokens = self._histogram(
            "request_prompt_tokens", "Number of prefill tokens processed.", tokens
        )
        self.request_generation_tokens = self._histogram(
            "request_generation_tokens", "Number of generation tokens processed.", tokens
        )
        self.iteration_tokens = self._histogram(
            "iteration_tokens_total", "Histogram of number of tokens per engine_step.", _PER_ITERATION
        )
        self.request_max_generation_tokens = self._histogram(
            "request_max_num_generation_tokens",
            "Histogram of maximum number of requested generation tokens.",
            tokens,
        )
        self.request_params_n = self._histogram("request_params_n", "Histogram of the n request parameter.", _CHOICES)
        self.request_params_max_tokens = self._histogram(
            "request_params_max_tokens", "Histogram of the max_tokens request parameter.", tokens
        )
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds", "Histogram of time to first token in seconds.", _FIRST_TOKEN
        )
        self.inter_token_latency = self._histogram(
            "inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", _PER_TOKEN
        )
        self.time_per_output_token = self._histogram(
            "request_time_per_output_token_seconds",
            "Histogram of time_per_output_token_seconds per request.",
            _PER_TOKEN,
        )
        self.e2e_latency = self._histogram(
            "e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", _PER_REQUEST
        )
        self.queue_time = self._phase("queue", "WAITING")
        self.inference_time = self._phase("inference", "RUNNING")
        self.prefill_time = self._phase("prefill", "PREFILL")
        self.decode_time = self._phase("decode", "DECODE")
        self.preemptions = self._histogram(
            "request_num_preemptions",
            "Histogram of the number of times a request was preempted.",
            _PREEMPTIONS,
        )
        self.prefill_computed_tokens = self._histogram(
            "request_prefill_kv_computed_tokens",
            "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
            tokens,
        )
        self._cache_config(cache_blocks)

    def exposition(self) -> bytes:
        """The text that `/metrics` answers with."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"vllm:{name}", text, self._labels, registry=self._registry).labels(**self._labels)

    def _counters(self, name: str, text: str, label: str, values: Sequence[str]) -> dict[str, Counter]:
        family = Counter(f"vllm:{name}", text, [*self._labels, label], registry=self._registry)
        return {value: family.labels(**self._labels, **{label: value}) for value in values}

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"vllm:{name}", text, self._labels, registry=self._registry).labels(**self._labels)

    def _gauges(self, name: str, text: str, label: str, values: Sequence[str]) -> dict[str, Gauge]:
        family = Gauge(f"vllm:{name}", text, [*self._labels, label], registry=self._registry)
        return {value: family.labels(**self._labels, **{label: value}) for value in values}

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        family = Histogram(f"vllm:{name}", text, self._labels, buckets=buckets, registry=self._registry)
        return family.labels(**self._labels)

    def _phase(self, name: str, phase: str) -> Histogram:
        return self._histogram(
            f"request_{name}_time_seconds",
            f"Histogram of time spent in {phase} phase for request.",
            _PER_REQUEST,
        )

    def _rejections(self, model_name: str) -> Counter:
        # Counted by the API server, which has no engine number: the one metric without that label.
        family = Counter(
            "vllm:admission_rejections",
            "Number of admission attempts rejected by a queue limit, by reason.",
            ["model_name", "reason"],
            registry=self._registry,
        )
        rejected = family.labels(model_name=model_name, reason="max_num_queued_reqs")
        family.labels(model_name=model_name, reason="max_num_queued_tokens")
        return rejected

    def _cache_config(self, cache_blocks: int) -> None:
        config = {
            "block_size": str(BLOCK_SIZE),
            "cache_dtype": "auto",
            "enable_prefix_caching": "True",
            "engine": "0",
            "kv_cache_size_tokens": str(cache_blocks * BLOCK_SIZE),
            "num_gpu_blocks": str(cache_blocks),
            "prefix_caching_hash_algo": "none",
        }
        Gauge(
            "vllm:cache_config_info",
            "Information of the LLMEngine CacheConfig",
            config,
            registry=self._registry,
        ).labels(**config).set(1)
