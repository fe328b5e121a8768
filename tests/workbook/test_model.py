"""The model without weights: the same tokenizer everywhere, because stored outputs hold numbers of tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from workbook.engine import ModelNotMade, model_dir

SENTENCE = "Who used how many tokens, and what did it cost?"
SHAPES = {"tiny": 2048, "small": 2048, "mistral-7b": 32768}


@pytest.fixture
def tokenizer(build: Path) -> Callable[[str], Tokenizer]:
    return lambda shape: Tokenizer.from_file(str(model_dir(shape) / "tokenizer.json"))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sentence_has_the_same_tokens_in_every_shape_and_on_every_machine(
    shape: str, tokenizer: Callable[[str], Tokenizer]
) -> None:
    encoded = tokenizer(shape).encode(SENTENCE)
    assert len(encoded.ids) == 24
    assert encoded.tokens[0] == "<s>"


@pytest.mark.parametrize(("shape", "vocabulary"), SHAPES.items())
def test_every_id_of_the_vocabulary_reads_as_text(
    shape: str, vocabulary: int, tokenizer: Callable[[str], Tokenizer]
) -> None:
    """A model with random weights says any of them."""
    made = tokenizer(shape)
    assert made.get_vocab_size() == vocabulary
    assert json.loads((model_dir(shape) / "config.json").read_text())["vocab_size"] == vocabulary
    special = set(made.get_added_tokens_decoder())
    assert len(special) == 5
    assert all(made.decode([number]) for number in range(vocabulary) if number not in special)


@pytest.mark.parametrize("text", [SENTENCE, "Grüße, 世界 🙂", "\t{'a': [1, 2]}\r\n", "bababa dudedi", ""])
def test_any_text_survives(text: str, tokenizer: Callable[[str], Tokenizer]) -> None:
    made = tokenizer("mistral-7b")
    assert made.decode(made.encode(text).ids) == text


def test_it_is_made_once_and_mended_when_it_is_not_whole(build: Path) -> None:
    made = model_dir("tiny")
    assert made == build / "models" / "tiny"
    before = {path.name: path.stat().st_mtime_ns for path in made.iterdir()}
    assert {path.name: path.stat().st_mtime_ns for path in model_dir("tiny").iterdir()} == before
    text = (made / "tokenizer.json").read_text()
    (made / "tokenizer.json").write_text(text[:100])
    assert (model_dir("tiny") / "tokenizer.json").read_text() == text
    assert [path.name for path in made.parent.iterdir()] == ["tiny"]


def test_what_is_not_a_model_is_left_alone(build: Path) -> None:
    mine = build / "models" / "tiny" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(ModelNotMade, match="models/tiny exists and is not a model directory; name another"):
        model_dir("tiny")
    assert mine.read_text() == "mine"


def test_an_unknown_shape_is_told_from_the_known(build: Path) -> None:
    with pytest.raises(ModelNotMade, match=r"'huge' \(choose from .*tiny.*small.*mistral-7b"):
        model_dir("huge")
