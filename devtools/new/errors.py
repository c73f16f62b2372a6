"""Why `new` cannot do what was asked."""


class NewError(Exception):
    """A sentence for the user; nothing was changed."""
