"""Checks everything that the stack needs. `python -m devtools.doctor`."""
