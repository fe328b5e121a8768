"""From a GPU-hour and a measurement to a price book: the arithmetic, the interval, and files that are refused."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness.results import Code, Conditions, Machine, Result, Validity, load_result, write_result
from otel_cost_logger.__main__ import main
from otel_cost_logger.prices.derive import DeriveError, Rate, Terms, read_result
from otel_cost_logger.prices.reading import read_book

RATES = {
    "prefill_input_tokens_per_second": {
        "median": 40_000.0,
        "low": 32_000.0,
        "high": 50_000.0,
        "confidence": 0.95,
        "rounds": 12,
    },
    "decode_output_tokens_per_second": {
        "median": 8000.0,
        "low": 6400.0,
        "high": 10_000.0,
        "confidence": 0.95,
        "rounds": 12,
    },
    "input_len": 1024,
    "output_len": 128,
    "concurrency": 64,
}
RUN_ID = "0123456789abcdef" * 2


def result(root: Path, rates: dict[str, Any] | None = RATES, reasons: list[str] | None = None) -> Path:
    """A result file as the benchmarks write it."""
    return write_result(
        Result(
            schema_version=1,
            run_id=RUN_ID,
            benchmark="throughput",
            started="2026-11-25T10:00:00Z",
            ended="2026-11-25T11:00:00Z",
            code=Code(commit=None, dirty=None, sha256="0" * 64),
            argv=[],
            parameters={},
            machine=Machine(
                label="one-gpu",
                cpu_model="c",
                cores=1,
                cores_usable=1,
                memory_gib=1.0,
                virtual=False,
                kernel="k",
                python="3",
            ),
            conditions=Conditions(
                load_average_before=[0.0] * 3, load_average_after=[0.0] * 3, cores_used_by_others_before=0.0
            ),
            packages={},
            samples=[{"repeat": 0}],
            summary={
                "engine": {"kind": "vllm", "version": "0.32.0", "shape": "mistral-7b", "weights": "random"},
                "token_rates": rates,
            },
            findings=["so it is"],
            validity=Validity(valid=not reasons, reasons=reasons or [], caveats=["random weights"]),
        ),
        root,
    )


def derive(path: Path, *more: str) -> int:
    return main(["prices", "derive", "--gpu-hour-usd", "3.60", "--results", str(path), *more])


def test_the_arithmetic_is_shown_and_the_interval_carried_through(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = tmp_path / "prices.yaml"
    assert derive(result(tmp_path), "--utilisation", "0.5", "--out", str(book), "--valid-from", "2026-12-01") == 0
    shown = capsys.readouterr().out
    # 3.60 USD for 3600 s x 0.5 x 40,000 tokens/s = 72 million tokens: 0.05 USD each million.
    assert "input: 3.60 x 1e6 / (3600 x 40000 [32000, 50000] tokens/s x 0.5) = 0.050000 [0.040000, 0.062500]" in shown
    assert "output: 3.60 x 1e6 / (3600 x 8000 [6400, 10000] tokens/s x 0.5) = 0.250000 [0.200000, 0.312500]" in shown
    assert "cached input: input x 1 (stated, not measured) = 0.050000 [0.040000, 0.062500]" in shown
    assert "random weights" in shown
    (entry,) = read_book(book).entries
    assert (entry.price.input, entry.price.output) == (Decimal("5e-8"), Decimal("2.5e-7"))
    assert (entry.model, entry.price.cached_input) == ("mistral-7b", None)
    assert entry.source is not None
    assert f"2026-11-25-throughput.json, run {RUN_ID}" in entry.source
    assert "utilisation 0.5; 95% interval input 0.040000 to 0.062500" in entry.source
    assert str(tmp_path) not in book.read_text()


@pytest.mark.parametrize("confidence", [0.95, None])
def test_few_repeats_are_called_a_range(
    confidence: float | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {"confidence": confidence, "rounds": 3}
    rates = {name: {**rate, **few} if isinstance(rate, dict) else rate for name, rate in RATES.items()}
    book = tmp_path / "prices.yaml"
    assert derive(result(tmp_path, rates), "--utilisation", "0.5", "--out", str(book)) == 0
    assert "concurrency 64; in brackets: range of 3" in capsys.readouterr().out
    (entry,) = read_book(book).entries
    assert "utilisation 0.5; range of 3 input 0.040000 to 0.062500" in str(entry.source)


def test_more_gpus_cost_more_and_a_cached_token_what_is_stated(tmp_path: Path) -> None:
    book = tmp_path / "prices.yaml"
    more = ["--utilisation", "0.5", "--gpus", "2", "--cached-share", "0.1", "--model", 'a "b": c', "--out", str(book)]
    assert derive(result(tmp_path), *more) == 0
    (entry,) = read_book(book).entries
    assert (entry.model, entry.price.input, entry.price.cached_input) == ('a "b": c', Decimal("1e-7"), Decimal("1e-8"))


def test_several_utilisations_are_compared_and_make_no_book(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = result(tmp_path)
    assert derive(path) == 0
    assert capsys.readouterr().out.count("cached input:") == 3
    assert derive(path, "--utilisation", "0.3", "--utilisation", "0.6", "--out", str(tmp_path / "no.yaml")) == 2
    assert "name a single --utilisation for --out" in capsys.readouterr().err
    assert not (tmp_path / "no.yaml").exists()


@given(
    st.decimals("0.01", "100", places=2),
    st.decimals("0.01", 1, places=2),
    st.floats(10, 1e6),
    st.floats(1, 1e5),
    st.integers(0, 100),
)
def test_a_busy_hour_is_paid_for_whatever_its_mix(
    hour: Decimal, used: Decimal, prefill: float, decode: float, percent: int
) -> None:
    terms = Terms(hour, 1, used, Decimal(1))
    seconds = Decimal(3600) * used
    income = Decimal(0)
    for rate, share in ((prefill, percent), (decode, 100 - percent)):
        speed = Decimal(repr(rate))
        millions = speed * seconds * share / 100 / 10**6
        price = terms.per_million(Rate(speed, speed, speed, 0.95)).median
        # The price is rounded to a millionth of a dollar per million tokens.
        assert abs(millions * price - hour * share / 100) <= millions * Decimal("0.0000005") + Decimal("1e-20")
        income += millions * price
    assert income >= 0


def test_a_file_of_the_benchmarks_own_reader_is_read_the_same(tmp_path: Path) -> None:
    path = result(tmp_path)
    measured = read_result(path)
    assert (measured.run_id, measured.sha256) == (load_result(path).run_id, json.loads(path.read_text())["sha256"])


def changed(path: Path) -> None:
    path.write_text(path.read_text().replace("40000.0", "80000.0"))


def cut(path: Path) -> None:
    path.write_text(path.read_text()[:-20])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (changed, "changed since it was written"),
        (cut, "not whole JSON"),
        (Path.unlink, "No such file"),
        (lambda path: path.write_text("[1]"), "not a result of"),
        (lambda path: path.write_text('{"summary": {"x": NaN}}'), "NaN is not JSON"),
        (lambda path: path.write_text("[" * 100_000), "not whole JSON"),
    ],
    ids=["changed", "cut", "gone", "a list", "NaN", "deep"],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Any, words: str) -> None:
    path = result(tmp_path)
    damage(path)
    with pytest.raises(DeriveError, match=words):
        read_result(path, anyway=True)


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        (None, r"no token rates .*prefill phase included"),
        (RATES | {"decode_output_tokens_per_second": {"median": 1.0, "low": 0.0, "high": 2.0}}, "0 < low <= median"),
        (RATES | {"decode_output_tokens_per_second": {"median": 1.0, "low": 2.0, "high": 3.0}}, "0 < low <= median"),
        (RATES | {"decode_output_tokens_per_second": None}, "0 < low <= median"),
        (RATES | {"concurrency": None}, "lacks input_len, output_len or concurrency"),
    ],
)
def test_rates_that_are_missing_or_make_no_sense_are_refused(
    tmp_path: Path, rates: dict[str, Any] | None, words: str
) -> None:
    with pytest.raises(DeriveError, match=words):
        read_result(result(tmp_path, rates))


def test_a_result_that_is_not_for_quoting_is_refused_and_says_so_when_used_anyway(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = result(tmp_path, reasons=["busy machine"])
    assert derive(path, "--utilisation", "1") == 2
    assert "not for quoting: busy machine. Measure again, or say --anyway" in capsys.readouterr().err
    assert derive(path, "--utilisation", "1", "--anyway") == 0
    assert "# NOT FOR QUOTING: busy machine" in capsys.readouterr().out


@pytest.mark.parametrize(
    "option",
    [
        ("--gpu-hour-usd", "0"),
        ("--gpu-hour-usd", "-1"),
        ("--gpu-hour-usd", "nan"),
        ("--gpu-hour-usd", "three"),
        ("--gpu-hour-usd", "1e99"),
        ("--utilisation", "0"),
        ("--utilisation", "60"),
        ("--cached-share", "1.5"),
        ("--cached-share", "-0.1"),
        ("--gpus", "0"),
        ("--gpus", "1.5"),
        ("--valid-from", "soon"),
    ],
)
def test_terms_that_make_no_sense_are_refused(
    tmp_path: Path, option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        derive(tmp_path / "unread.json", *option)
    assert option[0] in capsys.readouterr().err


def test_an_existing_price_book_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = tmp_path / "prices.yaml"
    book.write_text("mine")
    assert derive(result(tmp_path), "--utilisation", "1", "--out", str(book)) == 2
    assert book.read_text() == "mine"
    assert "exists; name a new file" in capsys.readouterr().err
