"""The two exceptions that end a run in one line; and what others say, in a line."""


class InputError(ValueError):
    """What a user typed or supplied cannot be used.

    The message is one line: what was expected, what came, and what to do. A command line prints it
    without a traceback and exits with code 2; other exceptions are defects and show theirs.
    """


class NonFinite(RuntimeError):
    """Metrics were NaN or infinite for many steps in a row: training cannot go on. Exit code 1."""


def first_line(error: BaseException) -> str:
    """Return the first line that an exception of another library says, or its name.

    It has at most 300 characters.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0].rstrip(":") if lines else type(error).__name__)[:300]
