"""`new`: creates a service from the template, removes it, updates the derived files."""

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from devtools import arguments
from devtools.address import AddressError, router_url
from devtools.new import FILES, NewError, checkout, render
from devtools.new.request import Request
from devtools.new.staging import staged
from services.common.command import run_main

_EPILOG = """\
examples:
  new service rates-api --route rates           HTTP, at /rates behind the router
  new service rates-api --route rates --redis   with Redis
  new service mailer --worker                   consumes a Redis stream
  new remove rates-api
  new sync                                      after a change of settings.py or service.toml

environment:
  PLATFORM_CHECKOUT  the checkout to change, when run outside one

exit codes:
  0  done
  1  not possible, and nothing was changed; standard error says why
  2  wrong arguments
"""


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    command_line = arguments.Parser(
        "new", "Creates a service that runs in the stack at once.", _EPILOG
    )
    commands = command_line.add_subparsers(dest="command", required=True, metavar="COMMAND")
    service = arguments.command(commands, "service", "create a service from the template")
    service.add_argument("name", metavar="NAME", help="such as rates-api")
    kind = service.add_mutually_exclusive_group(required=True)
    kind.add_argument("--route", metavar="R", default="", help="serve HTTP at /R behind the router")
    kind.add_argument(
        "--worker", action="store_true", help="no route: process the jobs of a Redis stream"
    )
    service.add_argument("--redis", action="store_true", help="use Redis (a worker always does)")
    service.add_argument(
        "--port", metavar="N", type=int, help="its port if the router uses 8000 (the next free one)"
    )
    remove = arguments.command(commands, "remove", "remove a service")
    remove.add_argument("name", metavar="NAME", help="such as rates-api")
    arguments.command(commands, "sync", f"update the derived files: {', '.join(FILES)}")
    return command_line


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Runs the command; returns the exit code."""
    options = parser().parse_args(argv)
    try:
        root = checkout.find(environ)
        if options.command == "service":
            request = Request(options.name, options.route, options.worker, options.redis)
            _make(root, request, options.port, environ)
        elif options.command == "remove":
            _remove(root, options.name)
        else:
            _sync(root)
    except (NewError, OSError) as error:
        sys.stderr.write(f"new: {error}\n")
        return 1
    return 0


def _make(root: Path, request: Request, port: int | None, environ: Mapping[str, str]) -> None:
    facts = request.facts(root, port)
    checkout.refuse_changes(root, FILES)
    files = dict(render.files(facts))
    with staged(root, request.folders, "add", "--force") as staging:
        staging.write(files)
        staging.format(request.folders)
    _say("made", files)
    _say("changed", staging.changed)
    if checkout.has_git(root):
        sys.stdout.write("`git add` is done for the new files: Nix sees only what git tracks\n")
    sys.stdout.write(_next(request, environ))


def _next(request: Request, environ: Mapping[str, str]) -> str:
    try:
        url = router_url(environ)
    except AddressError:
        url = "http://127.0.0.1:8000"
    if request.is_worker:
        call = f"logs -f --service {request.name}"
    else:
        call = f'curl -s {url}/{request.route}/greeting --json \'{{"name": "Ada"}}\''
    return (
        "\nNext:\n"
        f"  pytest tests/{request.folder}\n"
        "  platform down\n"
        "  platform up -D\n"
        f"  {call}\n"
        f"  docs/adding-a-service.md: what each file in services/{request.folder} is for\n"
    )


def _remove(root: Path, name: str) -> None:
    request = Request(name)
    checkout.refuse_removal(root, request)
    forget = ("rm", "-r", "--force", "--quiet", "--cached", "--ignore-unmatch")
    with staged(root, request.folders, *forget) as staging:
        for folder in request.folders:
            shutil.rmtree(staging.folder / folder, ignore_errors=True)
    _say("removed", [f"{folder}/" for folder in request.folders])
    _say("changed", staging.changed)


def _sync(root: Path) -> None:
    with staged(root) as staging:
        pass
    _say("changed", staging.changed or ["nothing"])


def _say(verb: str, names: Sequence[str] | Mapping[str, str]) -> None:
    for name in names:
        sys.stdout.write(f"{verb:8} {name}\n")


if __name__ == "__main__":
    sys.exit(run_main(lambda: main(sys.argv[1:], os.environ)))
