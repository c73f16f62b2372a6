"""Everything the pages name exists: links, files, commands, modules, variables, metrics."""

import functools
import importlib.util
import re
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
def test_links_lead_somewhere(page: Path) -> None:
    """Each link to a file leads to one, and each #anchor to a heading."""
    broken = []
    prose = re.sub(r"`[^`\n]*\]\([^`\n]*`", "", unfenced(page.read_text()))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_files_that_are_named_exist(page: Path) -> None:
    """A path in backticks, with or without `*`, exists in the repository."""
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./*-]+)`", page.read_text())
    assert [path for path in set(named) - TRIED if not any(ROOT.glob(path.rstrip("/")))] == []


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_modules_that_are_named_exist(page: Path) -> None:
    """Each `python -m services.…` can be run as written."""
    named = set(re.findall(r"-m ((?:services|devtools|tests|bench)[\w.]*\w)", page.read_text()))
    assert [name for name in named if importlib.util.find_spec(name) is None] == []


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_flake_outputs_that_are_named_exist(page: Path) -> None:
    """`nix run .#name` and `nix build .#name` name outputs of the flake."""
    nix = "\n".join(path.read_text() for path in sorted((ROOT / "nix").glob("*.nix")))
    images = {f"image-{name}" for name in SERVICES}
    commands = set(
        re.findall(r"^ {2,4}([\w-]+) = (?:\{$|platformOf|pkgs\.write)", nix, re.MULTILINE)
    )
    named = set(re.findall(r"\.#(?:packages\.[\w-]+\.)?([a-z][\w-]*[a-z])", page.read_text()))
    assert named - images - commands - {"image-configs"} == set()


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_variables_that_are_named_exist(page: Path) -> None:
    """Names in upper case are environment variables or constants of the code."""
    assert words_of([page], VARIABLE) - known_variables() == set()


@functools.cache
def known_variables() -> set[str]:
    return words_of(code(), VARIABLE) | settings.known() | TRIED


def test_alerts_are_about_metrics_that_are_counted() -> None:
    """Each name in an expression is one of our metrics, or Prometheus' own `up`."""
    rules = yaml.safe_load((ROOT / "deploy/alerts.yaml").read_text())["groups"][0]["rules"]
    named = {n for rule in rules for n in re.findall(r"\b(?:http|psp|queue)_\w+", rule["expr"])}
    counted = words_of((ROOT / "services").rglob("*metrics.py"), re.compile(r'"([a-z_]+)"'))
    assert {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in named} - counted == set()
