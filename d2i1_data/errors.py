"""The exception for input of the user that cannot be used."""


class InputError(ValueError):
    """Wrong input. The message says in one line what was got, where, and what is allowed.

    The console commands print it without a traceback and exit with code 2.
    """
