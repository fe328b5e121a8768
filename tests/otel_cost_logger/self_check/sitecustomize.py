"""On a child's path: renames one identifier in the source of one package, consistently, while it is loaded.

``RENAME_IN`` is the package, ``RENAME`` the identifier. What is installed is not touched, and no bytecode is written.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.machinery import SourceFileLoader
from types import CodeType

_package = f"{os.sep}site-packages{os.sep}{os.environ.get('RENAME_IN', '?')}{os.sep}"
_word = re.compile(rf"\b{re.escape(os.environ.get('RENAME', '?'))}\b")
_get_code = SourceFileLoader.get_code


def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
    path = self.get_filename(fullname)
    if _package in path:
        source = self.get_data(path).decode()
        if _word.search(source):
            text = _word.sub(lambda found: f"{found[0]}_renamed", source)
            return self.source_to_code(text.encode(), path)  # type: ignore[return-value]
    return _get_code(self, fullname)


if "RENAME" in os.environ:
    sys.dont_write_bytecode = True
    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
