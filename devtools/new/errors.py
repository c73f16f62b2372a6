"""The error of `new`."""


class NewError(Exception):
    """The request cannot be carried out and nothing was changed; the message says why."""
