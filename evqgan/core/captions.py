"""Texts that are drawn into pictures, by the font that comes with Pillow: ASCII and little more."""

import unicodedata

BESIDES = "©«°±´·»"  # what the font has beside ASCII
# What a letter without a base letter of its own is written as.
SPELT = {
    **{"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "þ": "th", "Þ": "Th"},
    **{"ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "ı": "i"},
    **{"–": "-", "—": "-", "’": "'", "‘": "'", "“": '"', "”": '"', "…": "...", "×": "x"},
}


def drawable(text: str) -> str:
    """Return a text in letters that the font has: without their marks (ä is a), or else ?.

    A system's own fonts would draw more, and the same picture differently on each system.
    """
    letters = []
    for letter in unicodedata.normalize("NFC", text):
        if letter in BESIDES:
            letters.append(letter)
            continue
        base = SPELT.get(letter) or unicodedata.normalize("NFKD", letter)
        kept = "".join(x for x in base if not unicodedata.combining(x))
        letters.append("".join(x if " " <= x <= "~" else "?" for x in kept))
    return "".join(letters)
