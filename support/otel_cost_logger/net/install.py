"""Put the net around LiteLLM's application, wherever in its life that is."""

from __future__ import annotations

import logging
import sys
from typing import Any

from otel_cost_logger.net.boundary import Net, Recorder
from otel_cost_logger.net.upstream import watch_engines

_log = logging.getLogger(__name__)


def install(recorder: Recorder, opened: tuple[str, ...]) -> Net | None:
    """The net around the proxy in this process, once; None where it is there already, or where there is no proxy.

    LiteLLM imports the plugin while its application starts, when what is put around it can no longer be added to: the
    net is then put in by hand, as the innermost layer, next to the routes.
    """
    app = getattr(sys.modules.get("litellm.proxy.proxy_server"), "app", None)
    if app is None or getattr(app, "otel_cost_logger_net", None) is not None:
        return None
    watch_engines()
    if app.middleware_stack is None:
        app.add_middleware(_Placed, recorder=recorder, opened=opened)
        app.user_middleware.append(app.user_middleware.pop(0))  # the first is the outermost
        net = None
    else:
        outer = _around_the_routes(app.middleware_stack)
        net = Net(outer.app, recorder, opened)
        outer.app = net
    app.otel_cost_logger_net = net or True
    return net


class _Placed(Net):
    """As Starlette makes what is put around an application."""


def _around_the_routes(layer: Any) -> Any:
    """The layer whose inner one handles exceptions of routes, or the innermost of those that can be looked into."""
    while type(layer.app).__name__ != "ExceptionMiddleware" and hasattr(layer.app, "app"):
        layer = layer.app
    return layer
