"""``vllm bench serve``, run after run in one process: a script for the Python that vLLM is in. Nothing of ours here.

Each line of stdin is a JSON object: ``words``, as they would stand after ``vllm bench serve``, and ``api_key``, which
is so in no process list. The answer to it is a line of stdout, a JSON object with ``error``: null or what went wrong.
What vLLM prints goes to stderr. One process for all runs, because importing vLLM takes ten seconds on two cores, which
would be most of a short run.
"""

from __future__ import annotations

import json
import os
import sys
import traceback

from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser


def serve() -> None:
    """Answer every line until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    parser = FlexibleArgumentParser(prog="vllm bench serve")
    add_cli_args(parser)
    for line in sys.stdin:
        asked = json.loads(line)
        os.environ["OPENAI_API_KEY"] = asked["api_key"]
        error = None
        try:
            main(parser.parse_args(asked["words"]))
        except (Exception, SystemExit) as failure:
            traceback.print_exc()
            error = f"{type(failure).__name__}: {failure}"
        print(json.dumps({"error": error}), file=answers, flush=True)


if __name__ == "__main__":
    serve()
