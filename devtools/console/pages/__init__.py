"""One module for each page; each has a function `page`."""
