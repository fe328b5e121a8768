"""A stand-in for `vllm serve` 0.32: the same wire, no model, no GPU.

It is for running everything that talks to vLLM (a LiteLLM proxy, a cost callback, a load generator, a
dashboard) on a laptop or in CI, and for rehearsing what goes wrong. Start it with
`python -m mock_vllm --port 0`; `python -m mock_vllm --help` lists the switches.

Faithful, and checked in the tests against recordings of a real vLLM 0.32.0:

- paths, status codes, content types, JSON keys, their order and types, nulls, server-sent-event framing;
- error bodies: shape, type, param and message;
- token arithmetic: usage, streamed usage, and the `/metrics` counters agree to the token. As in vLLM an
  end-of-sequence token counts as a completion token, and `n` choices count their prompt `n` times in
  `vllm:prompt_tokens_total` but once in `usage`;
- a client that goes away stops its request: the tokens made until then stay counted, and
  `vllm:request_success_total` does not move.

Deterministic, which a real engine is not: the same request, server `--seed` and request `seed` give the
same bytes apart from ids and times, in any order and at any concurrency. That holds for temperature above 0
without a seed too. Only what shows the state of a server varies: the cached tokens that
`--enable-prompt-tokens-details` reports, and the times that `--enable-per-request-metrics` reports.

Not faithful, on purpose:

- the text: readable English about the prompt, not a model's answer. Penalties, `top_p`, `logit_bias` and
  `bad_words` are checked and then ignored; log probabilities are plausible numbers;
- the tokenizer: a small one of its own (see `mock_vllm.tokenizer`), so counts differ from Mistral's, and the
  chat template does not render `tools`;
- time: none unless asked for (`--ttft-ms`, `--tpot-ms`). There is no batching: each request's tokens come on
  a schedule of their own, and `vllm:iteration_tokens_total` sees a step per token of a request;
- the prefix cache holds prompts only, not answers, and memory never runs out, so nothing is preempted;
- left out: tool call parsing (refused as by a vLLM without `--tool-call-parser`), images and audio, LoRA,
  beam search, `prompt_logprobs`, grammars and regular expressions, tracing, and the `http_*` metrics.
"""
