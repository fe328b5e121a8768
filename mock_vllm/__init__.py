"""A stand-in for `vllm serve` 0.32: the same wire, no model, no GPU.

It is for running everything that talks to vLLM (a LiteLLM proxy, a cost callback, a load generator, a
dashboard) on a laptop or in CI, and for rehearsing what goes wrong. Start it with
`python -m mock_vllm --port 0`; `python -m mock_vllm --help` lists the switches.

Faithful, and checked in the tests against recordings of a real vLLM 0.32.0 and, with an engine at hand, against
the engine itself, request by request (`test_against_engine.py`):

- paths, status codes, content types, JSON keys, their order and types, nulls, server-sent-event framing;
- error bodies: shape, type, param and message, for bad input of every kind. What the API server refuses is a 400;
  what only the engine refuses comes, when a stream was asked for, as an event of a stream with status 200;
- token arithmetic: usage, streamed usage, and the `/metrics` counters agree to the token. As in vLLM an
  end-of-sequence token counts as a completion token, `n` choices count their prompt `n` times in
  `vllm:prompt_tokens_total` but once in `usage`, and `max_tokens` is cut down to what the context has room for;
- a client that goes away stops its request: the tokens made until then stay counted, and
  `vllm:request_success_total` does not move;
- `--otlp-traces-endpoint`: one `llm_request` span per finished sequence, with vLLM's names, types and parents;
- what goes wrong, on request: an engine that dies, a full queue, a key that is refused, a SIGTERM that leaves open
  requests hanging (`--enable-faults`, `--max-num-queued-reqs`, `--api-key`, `--hang-on-sigterm`).

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
- the vocabulary is far larger than any real one, so token ids that vLLM would refuse may mean something here;
- `regex` and `grammar` constraints are taken and answered in prose, `stream_interval` and `use_beam_search` are
  taken and ignored, and with `tool_choice` "auto" no tool is ever called. A call that must be made is made, where
  the random weights of the recordings never finish one. `/v1/messages` and `/v1/responses` take tools and call none;
- pydantic's descriptions of items of `/v1/responses` name the types of the `openai` package that is installed here,
  which is older than vLLM's;
- start-up spans (`Load model`, ...) are not sent, only those of requests;
- left out: images and audio, LoRA, `/v1/chat/completions/batch`, `/generative_scoring`, scaling and scale-out
  endpoints, `/docs`, and the `http_*` metrics.
"""
