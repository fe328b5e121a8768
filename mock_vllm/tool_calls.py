"""Tool calls in Hermes' form: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` in the model's text.

A call is made when the request leaves no choice (`required`, or a tool by name). With `auto` the mock answers in
prose: it has no reason to call anything.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

from mock_vllm.checks import function_name
from mock_vllm.errors import bad_request
from mock_vllm.settings import Settings

Json = dict[str, Any]

_OPENING = '<tool_call>{"name": '
_BETWEEN = ', "arguments": '
_CLOSING = "}</tool_call>"


def refuse_without_parser(body: Json, settings: Settings) -> None:
    """Raises the 400 for what needs `--tool-call-parser`, or `--enable-auto-tool-choice` with it."""
    choice = body.get("tool_choice", "auto" if body.get("tools") else "none")
    if choice == "auto" and not (settings.enable_auto_tool_choice and settings.tool_call_parser):
        raise bad_request('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
    if settings.tool_call_parser:
        return
    if choice == "required":
        raise bad_request('tool_choice="required" requires --tool-call-parser to be set')
    if isinstance(choice, dict):
        raise bad_request(f'tool_choice=function "{function_name(choice)}" requires --tool-call-parser to be set')


def forced_tool(body: Json) -> Json | None:
    """The function that must be called, as the request declares it: the named one, or the first of `required`."""
    choice, tools = body.get("tool_choice"), body.get("tools") or []
    if choice == "required":
        return dict(tools[0]["function"])
    if not isinstance(choice, dict):
        return None
    name = function_name(choice)
    return next(dict(tool["function"]) for tool in tools if function_name(tool) == name)


def call_text(name: str, arguments: Json) -> str:
    """What a model says to call a tool."""
    shown = json.dumps(arguments, ensure_ascii=False)
    return f"{_OPENING}{json.dumps(name, ensure_ascii=False)}{_BETWEEN}{shown}{_CLOSING}"


def parsed(text: str) -> list[Json]:
    """The call in a text, as a list of one; none when it was cut short, as vLLM's parser sees none then."""
    if not (text.startswith(_OPENING) and text.endswith(_CLOSING)):
        return []
    name, _, arguments = text.removeprefix(_OPENING).removesuffix(_CLOSING).partition(_BETWEEN)
    function = {"name": json.loads(name), "arguments": arguments}
    return [{"id": _call_id(), "type": "function", "function": function}]


class CallStream:
    """Turns the text of a call, as it comes, into the deltas of a streamed answer."""

    def __init__(self) -> None:
        self._text = ""
        self._shown: int | None = None

    @property
    def named(self) -> bool:
        """A call has been told to the client."""
        return self._shown is not None

    def delta(self, text: str) -> Json:
        """What a token adds for the client: nothing, the call's name, or more of its arguments."""
        self._text += text
        head, found, rest = self._text.partition(_BETWEEN)
        if not found:
            return {}
        if self._shown is None:
            self._shown = 0
            name = json.loads(head.removeprefix(_OPENING))
            call = {"id": _call_id(), "type": "function", "index": 0, "function": {"name": name}}
            return {"content": None, "tool_calls": [call]}
        # What could be the beginning of the end is held back.
        held = next((n for n in range(len(_CLOSING), 0, -1) if rest.endswith(_CLOSING[:n])), 0)
        more = rest[self._shown : len(rest) - held]
        if not more:
            return {}
        self._shown += len(more)
        return {"content": None, "tool_calls": [{"index": 0, "function": {"arguments": more}}]}


def _call_id() -> str:
    return f"chatcmpl-tool-{secrets.token_hex(8)}"
