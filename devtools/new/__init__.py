"""Creates and removes services, and updates the files that are derived from them."""

PROCESS_COMPOSE = "process-compose.yaml"
CADDYFILE = "services/router/Caddyfile"
CONTAINERS = "deploy/compose.yaml"
PAGE = "docs/configuration.md"
EXAMPLE = ".env.example"
INHERITED = "devtools/inherited.txt"
FILES = (PROCESS_COMPOSE, CADDYFILE, CONTAINERS, PAGE, EXAMPLE, INHERITED)
"""The derived files, relative to the checkout."""


class NewError(Exception):
    """The request cannot be carried out and nothing was changed; the message says why."""
