"""Where in a JSON file something stands, so that an error can name the line."""

from __future__ import annotations

from typing import Any

import yaml

Place = tuple[str | int, ...]  # names and indices, from the top of the document

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where PyYAML was built so


def line_of(text: str, place: Place) -> int | None:
    """The line, from 1, where ``place`` begins in the JSON document ``text``; None where it cannot be told.

    Python's JSON parser does not say where a value stood. JSON is (nearly) YAML, and YAML's parser does.
    """
    try:
        node = yaml.compose(text, _Loader)
    except (yaml.YAMLError, RecursionError):
        return None
    if node is None:
        return None
    line: int = node.start_mark.line
    for step in place:
        if isinstance(node, yaml.MappingNode):
            found = [(name, value) for name, value in node.value if name.value == step]
            if not found:
                break
            name, node = found[-1]  # of names that stand there twice, the second
            line = name.start_mark.line
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line
        else:
            break
    return line + 1
