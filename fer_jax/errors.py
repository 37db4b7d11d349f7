"""The one exception that commands turn into one line and an exit code."""


class UserError(Exception):
    """Something the user gave is wrong; the message says what, and what would be right."""
