"""The one exception that means "what you gave cannot be used"."""


class InputError(ValueError):
    """Wrong input: the message says in one line what was got, where, and what is allowed.

    The console commands print it without a traceback and exit with code 2.
    """
