"""Where a sequence ends and which text each token shows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mock_vllm.decoding import StopRule, decode
from mock_vllm.tokenizer import EOS, pieces, token_id


def shown(tokens: list[str], rule: StopRule) -> tuple[str, str | None, str | int | None, int]:
    made = list(decode(tokens, rule))
    assert all(token.finish_reason is None for token in made[:-1])
    return "".join(token.delta for token in made), made[-1].finish_reason, made[-1].stop_reason, len(made)


def test_length_and_natural_end() -> None:
    tokens = ["one", " two", " three", EOS]
    assert shown(tokens, StopRule(2)) == ("one two", "length", None, 2)
    # The token that ends a text counts, and shows nothing.
    assert shown(tokens, StopRule(9)) == ("one two three", "stop", None, 4)


def test_stop_token_is_shown_and_named() -> None:
    rule = StopRule(9, token_ids=frozenset([token_id(" two")]))
    assert shown(["one", " two", " three", EOS], rule) == ("one two", "stop", token_id(" two"), 2)


def test_min_tokens_holds_off_stop_strings() -> None:
    tokens = ["a", "b", "a", "b", EOS]
    assert shown(tokens, StopRule(9, strings=("b",)))[0] == "a"
    assert shown(tokens, StopRule(9, min_tokens=2, strings=("ab",), include_string=True))[3] > 2


def test_the_stop_string_that_ends_first_wins() -> None:
    assert shown(["xyz", EOS], StopRule(9, strings=("yz", "xy")))[2] == "xy"


@given(
    st.text(alphabet="ab ", min_size=1, max_size=40),
    st.lists(st.text(alphabet="ab ", min_size=1, max_size=6), min_size=1, max_size=3),
    st.booleans(),
)
@settings(deadline=None)
def test_stop_strings_cut_where_a_whole_text_would_be_cut(text: str, stops: list[str], include: bool) -> None:
    rule = StopRule(max_tokens=1000, strings=tuple(stops), include_string=include)
    visible, finish_reason, stop_reason, _ = shown([*pieces(text), EOS], rule)
    assert finish_reason == "stop"
    if stop_reason is None:
        assert visible == text
        assert not any(stop in text for stop in stops)
    else:
        assert stop_reason in stops
        assert text.startswith(visible)
        if not include:
            assert not any(stop in visible for stop in stops)
            assert text[len(visible) :].startswith(str(stop_reason))
        else:
            assert visible.endswith(str(stop_reason))


@pytest.mark.parametrize("stop", ["longer than all of the text", "xx"])
def test_what_is_held_back_comes_in_the_end(stop: str) -> None:
    assert shown(["one", " two", EOS], StopRule(9, strings=(stop,)))[0] == "one two"
    assert shown(["one", " two", " three"], StopRule(2, strings=(stop,)))[0] == "one two"
