"""How gRPC's channel to a collector finds it again.

Of itself gRPC waits up to 120 seconds between two attempts to connect, and fails every request meanwhile.
"""

from __future__ import annotations

from typing import Any

# Numbers, which gRPC wants; the exporters' annotation says text.
CHANNEL_OPTIONS: Any = (("grpc.initial_reconnect_backoff_ms", 1000), ("grpc.max_reconnect_backoff_ms", 5000))
