"""The alternative text of a figure, made of the words that are drawn in it, and shown with it in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import matplotlib.pyplot as plt
from IPython.core.getipython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator

_MAX_LABELS = 16  # in one panel; a listener loses track of more


def alt_text(figure: Figure) -> str:
    """Title, panels, axes, categories, labelled values and key of ``figure``, as sentences."""
    panels = [axes for axes in figure.axes if axes.get_visible()]
    sentences = list(_of_texts(figure.texts))  # its title among them
    for number, axes in enumerate(panels, start=1):
        name = f"Panel {number} of {len(panels)}" if len(panels) > 1 else "Diagram"
        sentences.append(f"{name}: {'; '.join(_of_panel(axes))}")
    sentences += [f"Key: {', '.join(_of_texts(legend.get_texts()))}" for legend in figure.legends]
    return " ".join(f"{sentence.rstrip('.;')}." for sentence in sentences)


def show_with_alt_text() -> None:
    """Have IPython put the alternative text beside every figure that it shows; elsewhere nothing happens."""
    shell = get_ipython()
    if shell is None or shell.display_formatter is None:
        return
    plt.switch_backend(plt.get_backend())  # IPython registers its own printer now, and does not replace ours later
    printers = shell.display_formatter.formatters["image/png"]
    if Figure in printers:
        plain = printers.lookup_by_type(Figure)
        printers.for_type(Figure, lambda figure: (plain(figure), {"alt": alt_text(figure)}))


def _of_panel(axes: Axes) -> Iterator[str]:
    titles = list(_of_texts(axes.title if side == "center" else getattr(axes, f"_{side}_title") for side in _SIDES))
    yield from titles
    for name, axis in (("across", axes.xaxis), ("up", axes.yaxis)):
        places, words = axis.get_major_locator(), list(_of_texts([axis.label]))
        if isinstance(places, FixedLocator):
            words += filter(None, map(_plain, axis.get_major_formatter().format_ticks(list(places()))))
        if words:
            yield f"{name}: {', '.join(words)}"
    labels = list(_of_texts(axes.texts))
    if labels:
        yield f"labels: {', '.join(labels[:_MAX_LABELS])}"
    legend: Legend | None = axes.get_legend()
    if legend is not None:
        yield f"key: {', '.join(_of_texts(legend.get_texts()))}"


_SIDES = ("left", "center", "right")


def _of_texts(texts: Iterable[Text]) -> Iterator[str]:
    for text in texts:
        if text.get_visible() and (words := _plain(text.get_text())):
            yield words


def _plain(words: str) -> str:
    return " ".join(words.split())
