"""Round numbers for the axes of a picture."""

import math


def ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Return round numbers from low to high, at most `most`, at equal distances."""
    rough = (high - low) / most
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough)
    return [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Return powers of ten from low to high, both above 0, and 2 and 5 times these if few.

    At most `most` if there is no power of ten beside them. Where only one such number lies between
    them, `ticks` are returned.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for factors in ((1, 2, 5), (1,)):
        numbers = [k * 10.0**power for power in powers for k in factors]
        found = [x for x in numbers if low <= x <= high]
        if len(found) <= most:
            break
    return found if len(found) > 1 else ticks(low, high, most)


def number(value: float) -> str:
    """Return a number as an axis has it, in few letters: 0.05, 8,000, 20k, 1.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.4g}{unit}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
