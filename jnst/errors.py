"""The one exception that means "the input is wrong": commands print it as one line and exit with 2."""

__all__ = ["InputError"]


class InputError(ValueError):
    """A mistake in what the user gave: the message names the flag or file, the value and what was expected."""
