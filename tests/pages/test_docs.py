"""Everything the pages name exists: links, files, commands, modules, variables, metrics."""

import functools
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from devtools import settings
from devtools.catalog import SERVICES
from tests.support import ROOT

FOLDERS = ("bench", "deploy", "devtools", "docs", "nix", "services", "tests")
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md")),
]
# In examples: experiments that were removed, and a typo.
TRIED = {
    *("PSP_KIND", "PSP_TIMEOUT_SECOND", "services/psp_connector/plain_psp.py"),
    "RATES_API_DECIMALS",
    "REDISCLI_AUTH",  # of redis-cli
    *("services/rates_api/", "tests/rates_api/"),
    "bench/results/",  # there when it has run
}
VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")


def title(path: Path) -> str:
    return str(path.relative_to(ROOT))


def unfenced(text: str) -> str:
    """A page's prose and tables, without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", unfenced(text), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def code() -> Iterator[Path]:
    """All code of the platform, without pages and tests."""
    yield from (ROOT / name for name in ("process-compose.yaml", "flake.nix", "nixw"))
    suffixes = {".py", ".lua", ".nix", ".sh", ".yaml", ".conf", ""}
    for folder in ("bench", "deploy", "devtools", "nix", "services"):
        yield from (path for path in (ROOT / folder).rglob("*") if path.suffix in suffixes)


def words_of(paths: Iterable[Path], pattern: re.Pattern[str]) -> set[str]:
    return {word for path in paths if path.is_file() for word in pattern.findall(path.read_text())}


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_what_a_page_names_exists(page: Path) -> None:
    """Links and anchors, files in backticks, modules to run, outputs of the flake, variables."""
    text = page.read_text()
    files = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./*-]+)`", text)
    modules = re.findall(r"-m ((?:services|devtools|tests|bench)[\w.]*\w)", text)
    outputs = re.findall(r"\.#(?:packages\.[\w-]+\.)?([a-z][\w-]*[a-z])", text)
    missing = {
        "links": [link for link in links(text) if not leads_somewhere(page, link)],
        "files": [path for path in {*files} - TRIED if not any(ROOT.glob(path.rstrip("/")))],
        "modules": [name for name in {*modules} if importlib.util.find_spec(name) is None],
        "outputs": [*{*outputs} - flake_outputs()],
        # Names in upper case are environment variables or constants of the code.
        "variables": [*words_of([page], VARIABLE) - known_variables()],
    }
    assert {kind: names for kind, names in missing.items() if names} == {}


def links(text: str) -> list[str]:
    """The targets of a page's links within the repository."""
    prose = re.sub(r"`[^`\n]*\]\([^`\n]*`", "", unfenced(text))
    return [one for one in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in one]


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether there is a file and, after a `#`, a heading in it."""
    path, _, anchor = link.partition("#")
    file = (page.parent / path) if path else page
    return file.exists() and (not anchor or anchor in anchors(file.read_text()))


@functools.cache
def flake_outputs() -> set[str]:
    nix = "\n".join(path.read_text() for path in sorted((ROOT / "nix").glob("*.nix")))
    commands = re.findall(r"^ {2,4}([\w-]+) = (?:\{$|platformOf|pkgs\.write)", nix, re.MULTILINE)
    return {*commands, "image-configs"} | {f"image-{name}" for name in SERVICES}


@functools.cache
def known_variables() -> set[str]:
    return words_of(code(), VARIABLE) | settings.known() | TRIED


def test_alerts_are_about_metrics_that_are_counted() -> None:
    """Each name in an expression is one of our metrics, or Prometheus' own `up`."""
    rules = yaml.safe_load((ROOT / "deploy/alerts.yaml").read_text())["groups"][0]["rules"]
    named = {n for rule in rules for n in re.findall(r"\b(?:http|psp|queue)_\w+", rule["expr"])}
    counted = words_of((ROOT / "services").rglob("*metrics.py"), re.compile(r'"([a-z_]+)"'))
    assert {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in named} - counted == set()


def test_git_ignores_copies_of_the_settings(tmp_path: Path) -> None:
    """Editors make them; `git add -A` would bring their secrets into the Nix store."""
    shutil.copy(ROOT / ".gitignore", tmp_path)
    names = [
        ".env",
        ".env~",
        ".env.swp",
        ".env.bak",
        ".env.local",
        "#.env#",
        ".#.env",
        ".env.example",
        ".envrc",
    ]
    for name in names:
        (tmp_path / name).touch()
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    listed = subprocess.check_output([*git, "ls-files"], text=True)
    assert listed.split() == [".env.example", ".envrc", ".gitignore"]
