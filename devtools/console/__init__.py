"""The console: the page to look at beside the editor. `python -m devtools.console`."""
