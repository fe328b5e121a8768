"""`/v1/embeddings`, served with `--runner pooling`."""

from __future__ import annotations

import base64
import functools
import math
import random
import struct
import time
from collections.abc import Mapping
from typing import Any

from mock_vllm import fields
from mock_vllm.chat import check_model
from mock_vllm.errors import bad_parameter, bad_request
from mock_vllm.prompt import Prompt, given_prompts
from mock_vllm.sampling import check_prompt, pooling_job
from mock_vllm.settings import Settings
from mock_vllm.validation import as_object, checked_body
from mock_vllm.wire import Call, Choice, Json, full_usage, request_id
from mock_vllm.writer import derive_seed

DIMENSIONS = 64


class EmbeddingsCall(Call):
    """A checked embeddings request."""

    def __init__(self, body: Any, headers: Mapping[str, str], settings: Settings) -> None:
        """Raises `ApiError`."""
        body = checked_body(as_object(body), fields.EMBEDDINGS, required=("input",))
        self._format = body.get("encoding_format", "float")
        if self._format not in ("float", "base64"):
            raise bad_parameter("encoding_format must be float or base64", "encoding_format", self._format)
        check_model(body, settings)
        if body.get("dimensions") not in (None, DIMENSIONS):
            raise bad_request(
                f'Model "{settings.model_name}" does not support matryoshka representation, '
                "changing output dimensions will lead to poor results."
            )
        prompts = given_prompts(body["input"], body.get("add_special_tokens", True))
        for prompt in prompts:
            check_prompt(prompt, settings.max_model_len)
        self.job = pooling_job(prompts, settings)
        self._settings = settings
        self._id = f"embd-{request_id(headers, body)}"
        self.job.request_ids = [f"{self._id}-{number}" for number in range(len(prompts))]
        self._created = int(time.time())

    def answer(self, choices: list[Choice]) -> Json:
        return {
            "id": self._id,
            "object": "list",
            "created": self._created,
            "model": self._settings.model_name,
            "data": [
                {
                    "index": sequence.index,
                    "object": "embedding",
                    "embedding": self._encoded(embed(sequence.prompt)),
                }
                for sequence in self.job.sequences
            ],
            "usage": full_usage(self.job, self._settings),
        }

    def _encoded(self, vector: list[float]) -> list[float] | str:
        if self._format == "float":
            return vector
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def embed(prompt: Prompt) -> list[float]:
    """A unit vector: the sum of one fixed random direction per token, so texts that share words are close."""
    total = [sum(column) for column in zip(*map(_direction, prompt.pieces), strict=True)]
    norm = math.sqrt(sum(value * value for value in total)) or 1.0
    return [value / norm for value in total]


@functools.lru_cache(maxsize=4096)
def _direction(piece: str) -> list[float]:
    rng = random.Random(derive_seed("embedding", piece))
    return [2.0 * rng.random() - 1.0 for _ in range(DIMENSIONS)]
