"""Make a model directory that `vllm serve --load-format dummy` starts from: tokenizer, chat template, configuration.

``python make_model.py SHAPE DIRECTORY``, with any Python that has `tokenizers`. Nothing is downloaded. There are no
weights: vLLM draws random ones, so an engine has the speed and the wire behaviour of the shape, and talks nonsense.

The tokenizer is a byte-level BPE trained on this checkout's LICENSE, a text that does not change, so a prompt has the
same number of tokens on every machine. That text gives about 1,600 tokens. The ids from there to the end of the
vocabulary are made-up words: the engine can sample them and every one of them reads as text, but encoding never gives
them, so a prompt has the same number of tokens in every shape as well.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

TEXT = Path(__file__).resolve().parents[2] / "LICENSE"

UNKNOWN, BEGIN, END, INSTRUCTION, INSTRUCTION_END = SPECIAL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")
_SPACE = "\u0120"  # how a byte-level BPE writes a space
_SYLLABLES = [consonant + vowel for consonant in "bdfghjklmnprstvz" for vowel in "aeiou"]

# As Mistral's: the system's words stand before the user's first. Other roles than the assistant's read as the user's.
CHAT_TEMPLATE = """\
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system = (messages[0]['content'] or '') + '\\n\\n' %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set system = '' %}
    {%- set turns = messages %}
{%- endif %}
{{- bos_token }}
{%- if system and not turns %}
    {{- '[INST] ' + system + '[/INST]' }}
{%- endif %}
{%- for turn in turns %}
    {%- if turn['role'] == 'assistant' %}
        {{- ' ' + (turn['content'] or '') + eos_token }}
    {%- else %}
        {{- '[INST] ' + (system if loop.first else '') + (turn['content'] or '') + ' [/INST]' }}
    {%- endif %}
{%- endfor %}
"""


class ModelError(RuntimeError):
    """The model directory cannot be made; the message says why and what to do."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a Mistral-architecture model. Ids of tokens are below ``vocabulary``; ``context`` is in tokens."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    context: int
    rope_theta: float


SHAPES = {
    # 4 million parameters: the fastest start and answer, for tests.
    "tiny": Shape(2048, 256, 704, 4, 8, 2, 32, 8192, 1e4),
    # 90 million: on two cores a token takes about 10 ms, long enough to be measured.
    "small": Shape(2048, 1024, 2816, 8, 16, 4, 64, 8192, 1e4),
    # Mistral-7B-v0.3's own sizes, for a GPU.
    "mistral-7b": Shape(32768, 4096, 14336, 32, 32, 8, 128, 32768, 1e6),
}


def train_tokenizer(text: str, vocabulary: int) -> Tokenizer:
    """A byte-level BPE trained on ``text``, filled with made-up words to exactly ``vocabulary`` ids.

    Raises `ModelError` when the words do not reach that far.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)

    described = json.loads(tokenizer.to_str())
    ids: dict[str, int] = described["model"]["vocab"]
    words = (_SPACE + "".join(syllables) for syllables in itertools.product(_SYLLABLES, repeat=3))
    unused = (word for word in words if word not in ids)
    # In the vocabulary without a merge that leads to it, a word can be decoded and is never encoded.
    ids.update(zip(itertools.islice(unused, vocabulary - len(ids)), itertools.count(len(ids))))
    if len(ids) != vocabulary:
        raise ModelError(f"a vocabulary of {vocabulary} is larger than there are made-up words: {len(ids)}")

    filled: Tokenizer = Tokenizer.from_str(json.dumps(described))
    filled.decoder = decoders.ByteLevel()
    filled.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, SPECIAL.index(BEGIN))]
    )
    return filled


def configuration(shape: Shape) -> dict[str, object]:
    """The content of ``config.json``, in the names of Hugging Face's MistralConfig."""
    return {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "dtype": "bfloat16",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "head_dim": shape.head_size,
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_theta,
        "sliding_window": None,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.02,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        **_special_ids(),
    }


def _special_ids() -> dict[str, int]:
    begin, end = SPECIAL.index(BEGIN), SPECIAL.index(END)
    return {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": end}


def files(shape: Shape) -> dict[str, str]:
    """The directory's files, by name. Raises `ModelError` when the text to train on is not there."""
    try:
        text = TEXT.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"the tokenizer is trained on {TEXT}, which cannot be read: {error.strerror}") from error
    tokenizer_configuration = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": UNKNOWN,
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": END,
        "model_max_length": shape.context,
        "clean_up_tokenization_spaces": False,
    }
    as_json = {
        "config.json": configuration(shape),
        "generation_config.json": _special_ids(),
        "tokenizer_config.json": tokenizer_configuration,
    }
    return {
        "tokenizer.json": train_tokenizer(text, shape.vocabulary).to_str(),
        "chat_template.jinja": CHAT_TEMPLATE,
        **{name: json.dumps(content, indent=2) + "\n" for name, content in as_json.items()},
    }


def make_model(shape_name: str, directory: Path) -> None:
    """Make ``directory`` whole or not at all; leave it as it is when it is that model already.

    Raises `ModelError` for an unknown shape, and when ``directory`` holds something that is not a model.
    """
    if shape_name not in SHAPES:
        raise ModelError(f"no shape {shape_name!r}; there are {', '.join(SHAPES)}")
    wanted = files(SHAPES[shape_name])
    if _holds(directory, wanted):
        return
    if directory.exists() and not (directory / "config.json").is_file():
        raise ModelError(f"{directory} exists and is not a model directory; name another, or remove it")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as workshop:
        new = Path(workshop) / "new"
        new.mkdir()
        for name, text in wanted.items():
            (new / name).write_text(text, encoding="utf-8")
        with contextlib.suppress(FileNotFoundError):
            directory.rename(Path(workshop) / "old")
        try:
            new.rename(directory)
        except OSError:
            if not _holds(directory, wanted):  # somebody else made the same meanwhile
                raise


def _holds(directory: Path, wanted: dict[str, str]) -> bool:
    return all(
        (path := directory / name).is_file() and path.read_text(encoding="utf-8") == text
        for name, text in wanted.items()
    )


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make a model directory without weights for `vllm serve`.")
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args(arguments)
    try:
        make_model(options.shape, options.directory)
    except (ModelError, OSError) as error:
        print(f"make_model.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
