"""The derived files, relative to the checkout."""

PROCESSES = "process-compose.yaml"
CADDYFILE = "services/router/Caddyfile"
CONTAINERS = "deploy/compose.yaml"
PAGE = "docs/configuration.md"
EXAMPLE = ".env.example"
FILES = (PROCESSES, CADDYFILE, CONTAINERS, PAGE, EXAMPLE)
