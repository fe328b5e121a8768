"""Points in time as people write them."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime


def parse_moment(text: str) -> datetime:
    """``2026-12-31`` or ``2026-12-31T12:00:00+01:00`` as a time in UTC, which is also meant where no offset is given.

    A date alone is its first moment. Raises ValueError or OverflowError for anything else.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def moment(text: str) -> datetime:
    """The same as an argument of a command."""
    try:
        return parse_moment(text)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date or time such as 2026-12-31T12:00") from error


def moment_ns(text: str) -> int:
    """The same in nanoseconds since the epoch, exact to the microsecond."""
    when = moment(text)
    return int(when.replace(microsecond=0).timestamp()) * 10**9 + when.microsecond * 1000
