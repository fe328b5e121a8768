"""What a token costs on hardware that one pays by the hour: from measured throughput to price-book entries.

An hour of the engine is split by time. A prompt of ``i`` tokens and an answer of ``o`` occupy a fully loaded engine for
``i / prefill + o / decode`` seconds, with the two rates that the benchmark `throughput` measures at one concurrency.
Whoever pays for an hour but uses only the share ``utilisation`` of it has to earn the hour from that share:

- input token: ``hour / (3600 x prefill x utilisation)``
- output token: ``hour / (3600 x decode x utilisation)``
- cached input token: ``cached_share`` of an input token. What a cache hit saves is not measured by that benchmark, so
  the share is the operator's to state; without a word it is 1 and a hit costs what any input token does.

Charged so, a work load that keeps the engine busy for that share of an hour pays for the whole hour, exactly, whatever
its mix of input and output. The convention is FinOps' unit economics (the cost of an hour over what it produces); llm-d
reports a cost per million tokens of a deployment by the same division, though not per request. The rates hold for the
concurrency and lengths at which they were measured: fewer callers at a time make a token dearer than this.

The result file is read as JSON. Needed of it: ``sha256``, ``run_id``, ``benchmark``, ``validity`` and, in ``summary``,
``token_rates`` with ``prefill_input_tokens_per_second`` and ``decode_output_tokens_per_second`` (each ``median``,
``low``, ``high``, ``confidence`` and ``rounds``), ``input_len``, ``output_len`` and ``concurrency``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from pathlib import Path
from typing import Any, NoReturn

import yaml

from otel_cost_logger.prices import reading

_SECONDS = 3600
_MILLION = 10**6
_DECIMALS = Decimal("0.000001")  # of a derived price per million tokens
_EXACT = Context(prec=60)
_LEAST_REPEATS = 10  # for an interval: the benchmarks give the range of fewer
_RATES = ("prefill_input_tokens_per_second", "decode_output_tokens_per_second")


class DeriveError(ValueError):
    """No price can be derived; the message says from what, and why."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Measured tokens per second: the median, and an interval that holds it with ``confidence``.

    Of too few ``repeats`` for an interval, ``low`` and ``high`` are the least and the greatest; ``confidence`` is no
    matter then, and may be None.
    """

    median: Decimal
    low: Decimal
    high: Decimal
    confidence: float | None
    repeats: int = _LEAST_REPEATS

    @property
    def kind(self) -> str:
        """What ``low`` and ``high`` are, in words."""
        if self.confidence is None or self.repeats < _LEAST_REPEATS:
            return f"range of {self.repeats}"
        return f"{self.confidence:.0%} interval"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a result file says about an engine's speed. ``reservations`` are the file's own: why not to quote it, and
    what goes with any quotation."""

    file: str
    run_id: str
    sha256: str
    prefill: Rate
    decode: Rate
    input_len: int
    output_len: int
    concurrency: int
    engine: str
    reservations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Derived:
    """A price in US dollars per million tokens, and the ends of its interval: the faster, the cheaper."""

    median: Decimal
    low: Decimal
    high: Decimal

    def __str__(self) -> str:
        return f"{self.median} [{self.low}, {self.high}]"


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms an hour is sold: US dollars per GPU-hour, GPUs, the share of the hour that is used, and which share
    of an input token's price a cached one costs."""

    gpu_hour_usd: Decimal
    gpus: int
    utilisation: Decimal
    cached_share: Decimal

    def per_million(self, rate: Rate, share: Decimal = Decimal(1)) -> Derived:
        """The price of a million tokens of which ``rate`` fit into a second, times ``share``."""

        def price(tokens_per_second: Decimal) -> Decimal:
            paid = self.gpu_hour_usd * self.gpus * _MILLION * share
            used = _EXACT.multiply(tokens_per_second, _SECONDS * self.utilisation)
            return _EXACT.quantize(_EXACT.divide(paid, used), _DECIMALS)

        return Derived(price(rate.median), price(rate.high), price(rate.low))


def read_result(path: Path, *, anyway: bool = False) -> Measured:
    """What the result file at ``path`` measured.

    Raises `DeriveError` for a file that is missing, damaged, changed since it was written or without token rates, and,
    unless ``anyway``, for one that says of itself not to quote it.
    """
    try:
        document = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except OSError as error:
        raise DeriveError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DeriveError(f"{path}: not whole JSON, so truncated or damaged: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("summary"), dict):
        raise DeriveError(f"{path}: not a result of `python -m benchmarks`; name one of its files")
    recorded = document.pop("sha256", None)
    if recorded != hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest():
        raise DeriveError(f"{path}: changed since it was written: its sha256 is not that of its contents")
    validity = _mapping(document.get("validity"))
    reasons = _words(validity.get("reasons"))
    if validity.get("valid") is not True and not anyway:
        why = "; ".join(reasons) or "it does not say that it is valid"
        raise DeriveError(f"{path}: not for quoting: {why}. Measure again, or say --anyway")
    rates = _mapping(document["summary"].get("token_rates"))
    if not all(name in rates for name in _RATES):
        raise DeriveError(
            f"{path}: no token rates (summary.token_rates with {' and '.join(_RATES)}): measure with `python -m "
            "benchmarks run throughput`, prefill phase included"
        )
    prefill, decode = (_rate(rates[name], f"{path}: summary.token_rates.{name}") for name in _RATES)
    lengths = [rates.get(name) for name in ("input_len", "output_len", "concurrency")]
    if not all(isinstance(number, int) and number > 0 for number in lengths):
        raise DeriveError(f"{path}: summary.token_rates lacks input_len, output_len or concurrency")
    engine = _mapping(document["summary"].get("engine"))
    return Measured(
        file=path.name,
        run_id=str(document.get("run_id")),
        sha256=str(recorded),
        prefill=prefill,
        decode=decode,
        input_len=int(lengths[0] or 0),
        output_len=int(lengths[1] or 0),
        concurrency=int(lengths[2] or 0),
        engine=" ".join(str(engine[name]) for name in ("kind", "version", "shape", "device") if engine.get(name))
        + (" in eager mode" if engine.get("eager") else ""),
        reservations=(*(f"NOT FOR QUOTING: {reason}" for reason in reasons), *_words(validity.get("caveats"))),
    )


def arithmetic(measured: Measured, terms: Terms) -> Iterator[str]:
    """How the prices come about, line by line."""
    hour = terms.gpu_hour_usd * terms.gpus
    yield f"utilisation {terms.utilisation}: {terms.gpu_hour_usd} USD x {terms.gpus} GPU = {hour} USD an hour, from"
    yield f"  {_SECONDS} s x {terms.utilisation} = {_SECONDS * terms.utilisation} s of work; USD per million tokens:"
    for name, rate in (("input", measured.prefill), ("output", measured.decode)):
        price = terms.per_million(rate)
        tokens = " ".join([_figures(rate.median), f"[{_figures(rate.low)}, {_figures(rate.high)}]", "tokens/s"])
        yield f"  {name}: {hour} x 1e6 / ({_SECONDS} x {tokens} x {terms.utilisation}) = {price}"
    cached = terms.per_million(measured.prefill, terms.cached_share)
    yield f"  cached input: input x {terms.cached_share} (stated, not measured) = {cached}"


def header(measured: Measured) -> Iterator[str]:
    """What was measured, and what must be known about it."""
    yield f"{measured.file}, run {measured.run_id}, sha256 {measured.sha256}"
    yield (
        f"{measured.engine}: prompts of {measured.input_len} tokens, answers of {measured.output_len}, concurrency "
        f"{measured.concurrency}; in brackets: {measured.prefill.kind}"
    )
    yield from measured.reservations


def book_text(measured: Measured, terms: Terms, model: str, valid_from: str | None) -> str:
    """A price book with the one entry that the measurement gives, its arithmetic above it."""
    input_, output = terms.per_million(measured.prefill), terms.per_million(measured.decode)
    cached = terms.per_million(measured.prefill, terms.cached_share)
    entry = {
        reading.MODEL: model,
        reading.INPUT: input_.median,
        reading.OUTPUT: output.median,
        **({reading.CACHED_INPUT: cached.median} if terms.cached_share != 1 else {}),
        **({reading.VALID_FROM: valid_from} if valid_from else {}),
        reading.SOURCE: (
            f"{measured.file}, run {measured.run_id}, sha256 {measured.sha256[:12]}: {terms.gpu_hour_usd} USD per "
            f"GPU-hour, {terms.gpus} GPU, utilisation {terms.utilisation}; {measured.prefill.kind} "
            f"input {input_.low} to {input_.high}, output {output.low} to {output.high} USD per million tokens"
        ),
    }
    quoted = (reading.MODEL, reading.SOURCE)
    fields = [f"{name}: {_quoted(value) if name in quoted else value}" for name, value in entry.items()]
    comments = [f"# {line}" for line in (*header(measured), *arithmetic(measured, terms))]
    return "\n".join([*comments, f"{reading.CURRENCY}: {reading.USD}", f"{reading.PRICES}:", "  - " + fields[0]]) + (
        "".join(f"\n    {field}" for field in fields[1:]) + "\n"
    )


def _figures(number: Decimal) -> str:
    return f"{float(number):.6g}"


def _quoted(value: object) -> str:
    return str(yaml.safe_dump(str(value), default_style='"', width=10**6, allow_unicode=True)).strip()


def _rate(value: object, where: str) -> Rate:
    fields = _mapping(value)
    numbers = [fields.get(name) for name in ("median", "low", "high")]
    median, low, high = (
        Decimal(repr(number)) if isinstance(number, int | float) and not isinstance(number, bool) else Decimal("NaN")
        for number in numbers
    )
    if any(number.is_nan() for number in (median, low, high)) or not 0 < low <= median <= high:
        raise DeriveError(f"{where}: expected numbers 0 < low <= median <= high, found {numbers}")
    confidence, repeats = fields.get("confidence"), fields.get("rounds")
    if confidence is not None and (not isinstance(confidence, float) or not 0 < confidence < 1):
        raise DeriveError(f"{where}: expected a confidence between 0 and 1, found {confidence!r}")
    if not isinstance(repeats, int):
        raise DeriveError(f"{where}: expected the number of rounds, found {repeats!r}")
    return Rate(median, low, high, confidence, repeats)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _words(value: object) -> list[str]:
    return [" ".join(str(item).split()) for item in value] if isinstance(value, list) else []


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
