"""For every test: nothing calls home, no signal is ignored. For those marked `engine`: one real vLLM for all."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from workbook.environment import go_offline
from workbook.paths import BUILD_VARIABLE

# At import, before any test module imports litellm, which would fetch its price map.
go_offline()

# A shell's background job ignores the first two, `nohup` the third, and children inherit that: tests could not end them
# with these signals. A handler that does nothing is not inherited, and leaves this process as it was.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

ENGINE_START_SECONDS = 420  # more than an engine's own patience, which tells more


@dataclass(frozen=True)
class SharedEngine:
    """A running vLLM (CPU) that serves the model "mistral-7b" in the shape "small".

    ``url`` is without ``/v1``; ``spans`` is the ledger that its own spans arrive in, start-up spans first; ``log`` and
    ``model`` (its directory) are for reading. It counts everybody's requests: compare differences.
    """

    url: str
    spans: Path
    log: Path
    model: Path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test that needs the engine pays for its start."""
    for item in items:
        if item.get_closest_marker("engine") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(ENGINE_START_SECONDS))


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedEngine]:
    """A real vLLM for all tests that only talk to it. One that kills or reconfigures an engine starts its own.

    Without an environment for it the test fails, and says how to build one: a test that was asked for is not skipped.
    """
    from workbook.engine import Engine, model_dir
    from workbook.services import Receiver

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BUILD_VARIABLE, str(tmp_path_factory.mktemp("engine")))
        receiver, vllm = Receiver("shared-spans"), Engine("shared-engine", args=["--enable-prompt-tokens-details"])
        with receiver:
            vllm.traces_endpoint = receiver.endpoint("http/protobuf")
            with vllm:
                running = SharedEngine(vllm.url, receiver.ledger, vllm.log, model_dir(vllm.shape))
                patch.undo()  # the tests have build folders of their own
                yield running
