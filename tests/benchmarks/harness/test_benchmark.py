"""Parameters: what they take, and what they say about what they do not take."""

from __future__ import annotations

import pytest

from benchmarks.harness.benchmark import PRESET, Choice, OrPreset, Parameter, WholeNumbers, Words, whole_numbers, words

CONCURRENCIES = WholeNumbers("concurrencies", "1,2,4", 1, "streams", count=3)


def test_numbers_have_the_type_of_their_default() -> None:
    assert repr(Parameter("rounds", 20, 2, "").parse("7")) == "7"
    assert repr(Parameter("seconds", 1.5, 0, "").parse("7")) == "7.0"


def test_a_choice_is_one_of_the_words() -> None:
    engine = Choice("engine", "mock", ("mock", "vllm"), "")
    assert engine.parse("vllm") == "vllm"
    with pytest.raises(ValueError, match="must be one of mock, vllm, got 'VLLM'"):
        engine.parse("VLLM")


def test_whole_numbers_are_kept_as_text_and_read_back() -> None:
    assert CONCURRENCIES.parse("1, 8,32") == "1,8,32"
    assert whole_numbers(CONCURRENCIES.parse("1, 8,32")) == (1, 8, 32)


@pytest.mark.parametrize("text", ["", "1,2", "0,1,2", "1,4,2", "1,2,2", "1,2,x", "1,2,3.5", "1,2,"])
def test_other_lists_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be 3 or more whole numbers, at least 1, in rising order .* got"):
        CONCURRENCIES.parse(text)


def test_words_are_some_of_the_choices() -> None:
    arms = Words("arms", "a,b", ("a", "b", "c"), "")
    assert words(arms.parse("c, a")) == ("c", "a")
    for text in ("", "a,d", "a,a", "a,"):
        with pytest.raises(ValueError, match="must be one or more of a, b, c, with commas, got"):
            arms.parse(text)


def test_a_preset_is_a_default_that_others_decide() -> None:
    repeats = OrPreset("repeats", Parameter("repeats", 0, 2, "of every run"))
    assert (repeats.name, repeats.default, repeats.help) == ("repeats", PRESET, "of every run")
    assert repeats.parse(PRESET) == PRESET
    assert repeats.parse("7") == 7
    with pytest.raises(ValueError, match="at least 2"):
        repeats.parse("1")
