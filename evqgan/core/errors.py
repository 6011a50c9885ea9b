"""The one exception that means "the input was wrong", not "the program is"; and what others say, in a line."""


class InputError(ValueError):
    """What a user typed or supplied cannot be used.

    The message is one line: what was expected, what came, and what to do. `evqgan.main` prints it without a traceback
    and exits with code 2; every other exception is a defect and shows its traceback.
    """


def first_line(error):
    """The first line that an exception of another library says, or its name; at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0].rstrip(":") if lines else type(error).__name__)[:300]
