"""The console: live web pages about the stack. `python -m devtools.console`."""
