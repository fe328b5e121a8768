"""What the notebooks need: child processes, span tables, figures and the headless runner.

Importing it switches off everything in this process that would call home. Names are imported when first used:
a child that only supervises another process should not wait for pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from workbook.environment import go_offline

if TYPE_CHECKING:
    from workbook.children import ChildDied as ChildDied
    from workbook.children import ChildError as ChildError
    from workbook.children import ChildNotReady as ChildNotReady
    from workbook.engine import Engine as Engine
    from workbook.engine import EngineNotBuilt as EngineNotBuilt
    from workbook.paths import ROOT as ROOT
    from workbook.paths import build_dir as build_dir
    from workbook.ports import PortTaken as PortTaken
    from workbook.services import Mock as Mock
    from workbook.services import Proxy as Proxy
    from workbook.services import Receiver as Receiver
    from workbook.spans import cost_table as cost_table
    from workbook.spans import read_ledger as read_ledger
    from workbook.stacks import TENANTS as TENANTS
    from workbook.stacks import RecordsMissing as RecordsMissing
    from workbook.stacks import Stack as Stack
    from workbook.stacks import stack as stack

_MODULE_OF = {
    "ChildDied": "children",
    "ChildError": "children",
    "ChildNotReady": "children",
    "Engine": "engine",
    "EngineNotBuilt": "engine",
    "Mock": "services",
    "PortTaken": "ports",
    "Proxy": "services",
    "ROOT": "paths",
    "Receiver": "services",
    "RecordsMissing": "stacks",
    "Stack": "stacks",
    "TENANTS": "stacks",
    "build_dir": "paths",
    "cost_table": "spans",
    "read_ledger": "spans",
    "stack": "stacks",
}

go_offline()


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"workbook.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(globals().keys() | _MODULE_OF.keys())
