"""What a listener is told of a figure."""

import matplotlib.pyplot as plt

from workbook.alt_text import alt_text


def test_it_has_the_words_of_the_figure_and_its_panels() -> None:
    figure, (left, right) = plt.subplots(1, 2)
    left.set_title("Tokens\nper tenant", loc="left")
    bars = left.bar([0, 1], [3, 5], label="mistral-7b")
    left.bar_label(bars, ["3", "5"])
    left.set_xticks([0, 1], ["acme", "globex"])
    left.legend()
    right.set(xlabel="requests", ylabel="ms")
    figure.suptitle("Two panels.")
    plt.close(figure)
    assert alt_text(figure) == (
        "Two panels. Panel 1 of 2: Tokens per tenant; across: acme, globex; labels: 3, 5; key: mistral-7b. "
        "Panel 2 of 2: across: requests; up: ms."
    )


def test_a_hidden_panel_is_not_told() -> None:
    figure, (left, right) = plt.subplots(1, 2)
    left.set_title("Seen")
    right.set_visible(False)
    plt.close(figure)
    assert alt_text(figure) == "Diagram: Seen."
