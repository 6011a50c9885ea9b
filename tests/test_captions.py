"""Names of any script in pictures."""

import numpy as np
import pytest

from evqgan.core import pictures
from evqgan.core.captions import drawable
from evqgan.plot.canvas import Canvas


@pytest.mark.parametrize(
    "text, drawn",
    [
        ("faces 0.5", "faces 0.5"),
        ("Blätter", "Blatter"),
        ("Bla\u0308tter", "Blatter"),  # as macOS spells it
        ("Größe, Łódź, smørrebrød", "Grosse, Lodz, smorrebrod"),
        ("猫 cat", "? cat"),
        ("ﬁn—“x” 1×2", 'fin-"x" 1x2'),
        ("two\nlines", "two?lines"),
        ("1 ± 2 ´", "1 ± 2 ´"),
    ],
)
def test_a_text_is_drawn_in_letters_that_the_font_has(text, drawn):
    assert drawable(text) == drawn


def test_what_is_drawn_is_what_is_drawable():
    image = np.zeros((4, 60, 3), np.uint8)
    np.testing.assert_array_equal(
        pictures.label(image, "Blätter"), pictures.label(image, "Blatter")
    )
    assert pictures.width_of("Blätter") == pictures.width_of("Blatter")
    assert (pictures.label(image, "猫") != pictures.label(image, " ")).any()
    found = []
    for text in ("ä", "a"):
        canvas = Canvas(20, 20)
        canvas.text(10, 10, text, (0, 0, 0), 11, "mm")
        found.append(canvas.picture())
    np.testing.assert_array_equal(*found)
