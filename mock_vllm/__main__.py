"""`python -m mock_vllm`: read the command line, serve until told to stop."""

from __future__ import annotations

import sys

from mock_vllm.cli import parse_settings
from mock_vllm.server import serve

if __name__ == "__main__":
    sys.exit(serve(parse_settings()))
