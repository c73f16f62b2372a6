"""`new`: its services pass all checks and can be removed; a refusal changes nothing."""

import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from devtools.catalog import SERVICES
from devtools.new import CADDYFILE
from devtools.new.checkout import _users
from devtools.new.request import Request
from tests.new.tree import KINDS, RUN_SECONDS_MAX, Tree, copy
from tests.support import ROOT, script

FOLDERS = [name.replace("-", "_") for name in KINDS]
EXTRA = ["service", "extra-api", "--route", "extra"]
TESTS = [f"tests/{folder}" for folder in FOLDERS]
PATHS = [*TESTS, *(f"services/{folder}" for folder in FOLDERS)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A copy, unchanged by the tests."""
    return copy(tmp_path_factory.mktemp("tree") / "tree")


@pytest.mark.timeout(RUN_SECONDS_MAX)
@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--no-cache", *PATHS],
        ["ruff", "format", "--no-cache", "--check", *PATHS],
        [sys.executable, "-m", "mypy", *PATHS],
        [sys.executable, "-m", "pytest", "-q", *TESTS, "tests/test_layout.py", "tests/deploy"],
    ],
    ids=["lint", "format", "types", "tests"],
)
def test_new_services_pass_all_checks(grown: Tree, command: list[str]) -> None:
    """Lint, format, types, the services' tests, layout, packages and containers pass."""
    done = grown.run(*command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_new_services_are_removed_without_a_trace(grown: Tree, tmp_path: Path) -> None:
    """After removal, every file is as before, to the byte, also for git."""
    clone = Tree(tmp_path / "clone")
    grown.git("clone", "--quiet", ".", str(clone.folder))
    for name in KINDS:
        done = clone.new("remove", name)
        assert (done.returncode, done.stderr) == (0, "")
    clone.git("add", "--all")
    assert clone.git("diff", "--cached", "--stat", f"HEAD~{len(KINDS)}") == ""


NAMES_REFUSED = {
    "Rates": "is not a valid service name",
    "a" * 25: "is not a valid service name",
    "json": "Python module",
    "true": "keyword of Python or YAML",
    "redis": "services/redis exists",
    "common": "services/common exists",
    "core-api": "services/core_api exists",
    "chaos": "tests/chaos exists",
    "docs": "docs exists",
    "preflight": "process-compose.yaml has a block of that name",
    "redis-cluster": "process-compose.cluster.yaml has a block of that name",
    "psp": "its settings would share the prefix of PSP_",
}
REFUSED = {
    **{f"service {name} --route extra": why for name, why in NAMES_REFUSED.items()},
    "service extra-api --route auth": "the route /auth is taken by auth-api",
    "service extra-api --route health": "the route /health is taken by the router",
    "service extra-api --route a/b": "'a/b' is not a valid route",
    "service extra-api --route extra --port 8002": "port 8002 is taken by core-api",
    "service extra-api --route extra --port 8017": "port 8017 is taken by redis-1 bus",
    "service extra-api --route extra --port 8013": "port 8013 cannot be used",
    "remove extra-api": "there is no service extra-api",
    "remove router": "router is part of the stack",
}


# Words that devtools, bench or tests use for other things, some as names in Python.
ORDINARY = (
    "account alert apps audit-log balance closed config customer data default document environment"
    " error event health https identity invoice items label ledger logs merchant message metrics"
    " order payment project rates-api report session settings state status user values"
)
# With placeholders, or this file would refer to the service.
REFERENCES = [
    ("bench/rows.py", "from services.<name>.models import Status"),
    ("tests/common/test_openapi.py", "import services.<name>.app as app"),
    ("tests/common/test_openapi.py", 'patch("services.<name>.app.clock")'),
    ("nix/package.nix", "exec python -m services.<name>"),
    ("devtools/health.py", 'SERVICES["<name>"].port(8000)'),
    ("tests/stack/test_attach.py", """f"{SERVICES['<name>'].url(port)}/\""""),
    ("devtools/environment.py", 'environ["<NAME>_PORT"]'),
    ("services/router/run.sh", 'curl "http://${<NAME>_ADDRESS}"'),
    ("devtools/console/overview.py", 'NODES = ("router", "<name>-api")'),
]


@pytest.mark.parametrize("name", sorted({*ORDINARY.split()} - SERVICES.keys()))
def test_a_new_service_can_be_removed_whatever_its_name(name: str) -> None:
    """An ordinary word in the code of this repository is not a reference to a service."""
    assert list(_users(ROOT, Request(name))) == []


@pytest.mark.parametrize("name", ["auth-api", "core-api", "psp-connector", "psp-sandbox"])
def test_the_services_that_devtools_need_cannot_be_removed(tree: Tree, name: str) -> None:
    refuses(tree, ["remove", name], f"{name} is in use: devtools/")


@pytest.mark.parametrize(("path", "line"), REFERENCES)
def test_a_reference_to_a_service_is_found(tmp_path: Path, path: str, line: str) -> None:
    """An import, a module's name, its entry in the catalog, its variables, its full name."""
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(line.replace("<name>", "status").replace("<NAME>", "STATUS"))
    name = "status-api" if "<name>-api" in line else "status"
    assert list(_users(tmp_path, Request(name))) == [path]


def refuses(tree: Tree, words: list[str], why: str) -> None:
    """The command prints one message and writes nothing."""
    before = tree.git("status", "--porcelain", "--ignored") + tree.git("diff")
    done = tree.new(*words)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(why, done.stderr), done.stderr
    assert done.stderr.startswith("new: ")
    assert done.stderr.count("\n") == 1
    assert before == tree.git("status", "--porcelain", "--ignored") + tree.git("diff")


@pytest.mark.parametrize(("words", "why"), list(REFUSED.items()))
def test_invalid_requests_are_refused(tree: Tree, words: str, why: str) -> None:
    """A name, route or port may be invalid or taken, a service missing or in use."""
    refuses(tree, words.split(), why)


@pytest.mark.parametrize(
    ("words", "name", "text", "why"),
    [
        (EXTRA, CADDYFILE, "# mine", f"{CADDYFILE}: uncommitted"),
        (EXTRA, "services/core_api/settings.py", "import nothing_of_it", "nothing_of_it"),
        (["sync"], "process-compose.yaml", "<<<<<<< HEAD", "compose.yaml: resolve the conflict"),
        (["sync"], CADDYFILE, ">>>>>>> theirs", f"{CADDYFILE}: resolve the conflict"),
        (["sync"], "process-compose.yaml", "=======", "compose.yaml: resolve the conflict"),
        (["sync"], "deploy/compose.yaml", "}", "deploy/compose.yaml: line .*expected"),
        (
            ["sync"],
            "deploy/compose.yaml",
            "services: {}",
            'line .*: found duplicate key "services"$',
        ),
        (["sync"], "docs/configuration.md", None, "No such file.*docs/configuration.md"),
    ],
)
def test_a_file_that_cannot_be_changed_is_named(
    tree: Tree, words: list[str], name: str, text: str | None, why: str
) -> None:
    """`new` changes nothing if it is edited, has a conflict, is broken or missing."""
    path = tree.folder / name
    if text is None:
        path.unlink()
    else:
        path.write_text(f"{path.read_text()}\n{text}\n")
    try:
        refuses(tree, words, why)
    finally:
        tree.git("checkout", "--quiet", ".")


@pytest.mark.parametrize(
    ("own", "taken", "message"),
    [
        ("port_offset = 2", "port_offset = 1", "same port, .*is one a copy.*change port_offset in"),
        ('route = "transactions"', 'route = "auth"', "same route, /auth: .*change route in"),
    ],
)
def test_services_with_the_same_port_or_route_are_named(
    tree: Tree, own: str, taken: str, message: str
) -> None:
    """Two branches may take the same one; after their merge `new sync` refuses it."""
    path = tree.folder / "services/core_api/service.toml"
    path.write_text(path.read_text().replace(own, taken))
    try:
        refuses(tree, ["sync"], f"auth-api and core-api have the {message}")
    finally:
        tree.git("checkout", "--quiet", ".")


def test_unstaged_code_is_kept(tree: Tree) -> None:
    """`new service` stages files; `new remove` deletes no unstaged work."""
    assert "`git add` is done" in tree.new(*EXTRA).stdout
    assert "services/extra_api/app.py" in tree.git("diff", "--cached", "--name-only")
    path = tree.folder / "services/extra_api/app.py"
    assert path.stat().st_mode & 0o777 == 0o644
    path.write_text(path.read_text() + "\n# mine\n")
    refuses(tree, ["remove", "extra-api"], "app.py has unstaged changes")
    tree.git("add", "services/extra_api")
    assert tree.new("remove", "extra-api").returncode == 0
    assert tree.git("status", "--porcelain", "--ignored") == ""


def test_a_locked_index_changes_nothing(tree: Tree) -> None:
    """While another git holds the index, `new service` and `new remove` leave all as it is."""
    lock = tree.folder / ".git/index.lock"
    for words in (EXTRA, ["remove", "extra-api"]):
        lock.touch()
        try:
            refuses(tree, words, "index.lock': File exists")
        finally:
            lock.unlink()
        assert tree.new(*words).returncode == 0
    assert tree.git("status", "--porcelain") == ""


def test_ignored_names_are_staged(tree: Tree) -> None:
    """Nix sees the whole service, even if the user's git ignores a folder and a file of it.

    The dangling link that Emacs makes for a changed file does not matter.
    """
    exclude, lock = tree.folder / ".git/info/exclude", tree.folder / "services/core_api/.#app.py"
    exclude.write_text("tests/\nsettings.py\n")
    lock.symlink_to("me@host.1:2")
    try:
        assert tree.new(*EXTRA).returncode == 0
        wanted = ["services/extra_api/settings.py", "tests/extra_api/test_api.py"]
        assert tree.git("ls-files", *wanted).split() == wanted
    finally:
        assert tree.new("remove", "extra-api").returncode == 0
        exclude.unlink()
        lock.unlink()
    assert tree.git("status", "--porcelain") == ""


def test_what_is_left_of_a_service_may_be_made_again(tree: Tree) -> None:
    """A switch of branches leaves the folders with their caches; an own file counts."""
    caches = [tree.folder / folder / "__pycache__" for folder in Request("extra-api").folders]
    own = caches[0].with_name("notes.txt")
    for path in caches:
        path.mkdir(parents=True)
    own.touch()
    try:
        refuses(tree, EXTRA, "services/extra_api exists")
        own.unlink()
        assert tree.new(*EXTRA).returncode == 0
    finally:
        tree.new("remove", "extra-api")
    assert tree.git("status", "--porcelain", "--ignored") == ""


def test_outside_a_checkout(tree: Tree, tmp_path: Path) -> None:
    done = tree.new(*EXTRA, cwd=tmp_path)
    assert (done.returncode, "is a checkout: change to one" in done.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("program", ["ruff", "git"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_command_has_done_all_or_nothing(
    tree: Tree, tmp_path: Path, program: str, number: signal.Signals
) -> None:
    """Killed before its moves (by ruff) it changes nothing, during them (by git) it finishes them.

    After kill -9 its temporary folder remains.
    """
    last = {"ruff": "format", "git": "add"}[program]
    kill = f'case " $* " in *" {last} "*) kill -{int(number)} $PPID; exit ;; esac'
    script(tmp_path / program, f'{kill}\nexec {shutil.which(program)} "$@"')
    code = tree.new(*EXTRA, path=tmp_path).returncode
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    left = list(tree.folder.glob(".new-*"))
    assert bool(left) == (number == signal.SIGKILL)
    for folder in left:  # where the code comes without .gitignore, git does not ignore it
        shutil.rmtree(folder)
    if program == "git":
        assert "import service extra " in (tree.folder / CADDYFILE).read_text()
        tree.git("add", "services/extra_api", "tests/extra_api")
        assert tree.new("remove", "extra-api").returncode == 0
    assert tree.git("status", "--porcelain") == ""
