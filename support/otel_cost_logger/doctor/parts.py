"""What the settings name, part by part, in words: for the line at the proxy's start and for the doctor."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from otel_cost_logger.budgets.book import read_budgets
from otel_cost_logger.keys.file import read_keys
from otel_cost_logger.ledger.file import LedgerError, open_any_version, refuse_newer, schema_version
from otel_cost_logger.prices.reading import read_book
from otel_cost_logger.settings import OTLP, Settings

# What a part raises that cannot be described.
UNREADABLE = (ValueError, LedgerError, OSError)
_FEW_BYTES = 1 << 30


def settings_line(settings: Settings) -> str:
    """All parts in one line; of a part that cannot be read at present, such as a locked ledger, why."""
    return "; ".join(f"{name}: {_described(describe, settings)}" for name, describe in PARTS.items())


def _described(describe: Callable[[Settings], str], settings: Settings) -> str:
    try:
        return describe(settings)
    except UNREADABLE as error:
        return " ".join(str(error).split())


def _ledger(settings: Settings) -> str:
    if settings.ledger is None:
        return "none, records wait in memory alone"
    path = settings.ledger.path
    if not path.exists():
        return f"{path}, made at the proxy's start"
    with closing(open_any_version(path)) as connection:
        refuse_newer(path, connection)
        schema = schema_version(connection)
    return f"{path} (schema {schema}, sync {settings.ledger.sync}, {settings.ledger.keep_days:g} days)"


def free_space(path: Path) -> tuple[str, bool]:
    """What is free where ``path`` is, or will be, and whether it is enough."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    return f"{free / 2**30:.1f} GiB free", free >= _FEW_BYTES


def _exporter(settings: Settings) -> str:
    names = [f"otlp ({settings.protocol})" if name == OTLP else name for name in settings.exporters]
    return ", ".join(names) or "none"


def _keys(settings: Settings) -> str:
    if settings.keys_file is None:
        return "LiteLLM's own"
    return f"{len(read_keys(settings.keys_file))} in {settings.keys_file}"


def _prices(settings: Settings) -> str:
    if settings.prices_file is None:
        return "LiteLLM's"
    return f"version {read_book(settings.prices_file).version} in {settings.prices_file}"


def _budgets(settings: Settings) -> str:
    if settings.budgets_file is None:
        return "none"
    return f"of {len(read_budgets(settings.budgets_file).tenants)} tenants in {settings.budgets_file}"


PARTS: dict[str, Callable[[Settings], str]] = {
    "ledger": _ledger,
    "exporter": _exporter,
    "keys": _keys,
    "prices": _prices,
    "budgets": _budgets,
}
