"""The command line: `vllm serve`'s own spelling where a switch exists there."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import NoReturn

from mock_vllm.latency import PROFILES, LatencyModel
from mock_vllm.settings import Settings


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see `python -m {self.prog} --help`\n")


def _number(kind: type[int] | type[float], low: float, high: float | None = None) -> Callable[[str], float]:
    """A converter that refuses numbers outside [low, high], with the range in the message."""
    span = f"at least {low}" if high is None else f"between {low} and {high}"

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= (sys.float_info.max if high is None else high):
            raise argparse.ArgumentTypeError(f"must be a number {span}, got {text!r}")
        return value

    return convert


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mock_vllm",
        description="A stand-in for `vllm serve` 0.32. Prints one JSON line on stdout when it accepts requests.",
        allow_abbrev=False,
    )
    parser.add_argument("model", nargs="?", default="mistral-7b", help="model path or name (default: %(default)s)")

    serve = parser.add_argument_group("as in `vllm serve`")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument(
        "--port", type=_number(int, 0, 65535), default=8000, help="0 takes a free port (default: %(default)s)"
    )
    serve.add_argument(
        "--served-model-name",
        nargs="+",
        metavar="NAME",
        help="names to answer to; answers carry the first (default: the model)",
    )
    serve.add_argument(
        "--max-model-len",
        type=_number(int, 1),
        default=8192,
        help="prompt and output tokens together (default: %(default)s)",
    )
    serve.add_argument("--api-key", nargs="+", metavar="KEY", default=[], help="demanded on /v1 paths if given")
    serve.add_argument(
        "--max-num-seqs", type=_number(int, 1), default=256, help="sequences running at once (default: %(default)s)"
    )
    serve.add_argument(
        "--max-num-queued-reqs",
        type=_number(int, 1),
        help="sequences running and waiting before 503 (default: no limit)",
    )
    serve.add_argument(
        "--runner",
        choices=("generate", "pooling"),
        default="generate",
        help="pooling serves embeddings (default: %(default)s)",
    )
    serve.add_argument("--enable-prompt-tokens-details", action="store_true", help="report cached tokens")
    serve.add_argument("--enable-request-id-headers", action="store_true", help="answer with X-Request-Id")
    serve.add_argument("--enable-per-request-metrics", action="store_true", help="report times in the body")
    serve.add_argument("--enable-auto-tool-choice", action="store_true", help='take tool_choice "auto"')
    serve.add_argument("--tool-call-parser", choices=("hermes",), help="take tools, and find calls in answers")
    serve.add_argument("--otlp-traces-endpoint", metavar="URL", help="where to send a span per request (default: none)")
    serve.add_argument("--seed", type=int, default=0, help="another seed gives other answers (default: %(default)s)")

    own = parser.add_argument_group("of the mock alone", "Times are in milliseconds, and 0 unless given.")
    milliseconds = _number(float, 0)
    own.add_argument(
        "--latency-profile",
        choices=sorted(PROFILES),
        help="times fitted to measured ones of a real engine; the flags below override it one by one",
    )
    own.add_argument("--ttft-ms", type=milliseconds, help="time to the first token")
    own.add_argument("--tpot-ms", type=milliseconds, help="time per output token after it")
    own.add_argument(
        "--latency-jitter", dest="jitter", type=_number(float, 0, 1), help="fraction of each delay, seeded"
    )
    own.add_argument("--ttft-ms-per-running", type=milliseconds, help="more for each other request running")
    own.add_argument("--tpot-ms-per-running", type=milliseconds, help="more for each other request running")
    own.add_argument(
        "--enable-faults",
        action="store_true",
        help="obey the x-mock-fault header or mock_fault body field: 401, 429, 500, 503, hang[:K], cut:K, die:K, "
        "crash:K",
    )
    own.add_argument(
        "--hang-on-sigterm",
        action="store_true",
        help="leave open requests without an answer or an end at SIGTERM, as vLLM does by default",
    )
    own.add_argument(
        "--no-exit-on-stdin-close",
        dest="exit_on_stdin_close",
        action="store_false",
        help="run detached: do not stop when the parent closes stdin",
    )
    return parser


def parse_settings(argv: Sequence[str] | None = None) -> Settings:
    """Settings from command line arguments; a bad one exits with code 2 and one line on stderr."""
    args = _parser().parse_args(argv)
    return Settings(
        model=args.model,
        served_model_names=tuple(args.served_model_name or [args.model]),
        host=args.host,
        port=args.port,
        max_model_len=args.max_model_len,
        api_keys=tuple(args.api_key),
        max_num_seqs=args.max_num_seqs,
        max_num_queued_reqs=args.max_num_queued_reqs,
        runner=args.runner,
        enable_prompt_tokens_details=args.enable_prompt_tokens_details,
        enable_request_id_headers=args.enable_request_id_headers,
        enable_per_request_metrics=args.enable_per_request_metrics,
        enable_auto_tool_choice=args.enable_auto_tool_choice,
        tool_call_parser=args.tool_call_parser,
        otlp_traces_endpoint=args.otlp_traces_endpoint,
        seed=args.seed,
        latency=_latency(args),
        enable_faults=args.enable_faults,
        exit_on_stdin_close=args.exit_on_stdin_close,
        hang_on_sigterm=args.hang_on_sigterm,
    )


def _latency(args: argparse.Namespace) -> LatencyModel:
    base = PROFILES[args.latency_profile].latency if args.latency_profile else LatencyModel()
    given = {field.name: getattr(args, field.name) for field in fields(LatencyModel)}
    return replace(base, **{name: value for name, value in given.items() if value is not None})
