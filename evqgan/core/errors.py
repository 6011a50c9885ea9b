"""The one exception that means "the input was wrong", not "the program is"."""


class InputError(ValueError):
    """What a user typed or supplied cannot be used.

    The message is one line: what was expected, what came, and what to do. `evqgan.main` prints it without a traceback
    and exits with code 2; every other exception is a defect and shows its traceback.
    """
