"""The one exception that means "the input is wrong": commands print it as one line and exit with 2."""

__all__ = ["InputError"]

_LONGEST = 900


class InputError(ValueError):
    """A mistake in what the user gave: the message names the flag or file, the value and what was expected.

    One line, whatever a file's names hold: line breaks become spaces, other controls escapes.
    """

    def __init__(self, message: object):
        text = "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in str(message))
        super().__init__(text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 3 :]}")
