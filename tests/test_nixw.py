"""nixw passes Nix the right command, packages and files."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT, call, script

NIX = """\
case $* in
  --version) echo "nix (Nix) 2.26.3" ;;
  *dry-run*) echo "  /nix/store/x-platform.drv" >&2 ;;
  *"derivation show"*) echo "$DERIVATION" ;;
  *) printf '%s\\n' "$@" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """An unpacked archive with nixw inside another repository; Nix and curl are fakes."""
    (tmp_path / ".git").mkdir()
    root = tmp_path / "archive"
    for name in ("bin", "nix", "services", ".state"):
        (root / name).mkdir(parents=True)
    shutil.copytree(ROOT / "nix/nixw", root / "nix/nixw")
    for name in ("nixw", "nix/package.nix"):
        shutil.copy(ROOT / name, root / name)
    script(root / "bin/nix", NIX)
    script(root / "bin/curl", "echo StoreDir: /nix/store")
    return root


def run(root: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    own = {"PATH": f"{root / 'bin'}:{os.environ['PATH']}", "HOME": str(root.parent)}
    done = call([str(root / "nixw"), *args], own | environ, cwd=root)
    assert done.returncode == 0, done.stderr
    return done


def nixw(root: Path, *args: str, **environ: str) -> list[str]:
    """The arguments for Nix, without constant options."""
    arguments = run(root, *args, **environ).stdout.splitlines()
    return arguments[arguments.index("max-jobs") + 2 :]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("run", "run ."),
        ("run -- up -D", "run . -- up -D"),
        ("run .#merchant -- list .", "run .#merchant -- list ."),
        ("develop -c echo .", "develop . -c echo ."),
        ("store gc", "store gc"),
        ("fmt -- --check", "run .#formatter -- --check"),
    ],
)
def test_commands(checkout: Path, typed: str, expected: str) -> None:
    """Each command leads to these arguments for Nix; the formatter is that of this system."""
    (checkout / ".git").mkdir()
    text = " ".join(nixw(checkout, *typed.split()))
    assert re.sub(r"formatter\.\S+", "formatter", text) == expected


@pytest.mark.skipif(not shutil.which("git"), reason="no git here")
def test_new_files_that_git_does_not_track_are_named(checkout: Path) -> None:
    """Except for the shell, which runs the checkout's own code, and in another repository.

    Also where variables name another one, as in its commit hook; this one's hook has its own index.
    """
    subprocess.run(["git", "init", "-q"], cwd=checkout, check=True)
    subprocess.run(["git", "add", "."], cwd=checkout, check=True)
    (checkout / "services/new.py").touch()
    hint = "nixw: Nix does not see files that git does not track: git add services/new.py"
    assert hint in run(checkout, "build").stderr
    assert "git add" not in run(checkout, "develop").stderr
    other = {"GIT_DIR": "/nowhere/.git", "GIT_WORK_TREE": str(checkout.parent)}
    other |= {"GIT_OBJECT_DIRECTORY": "/nowhere", "GIT_INDEX_FILE": "/nowhere/.git/index"}
    assert hint in run(checkout, "build", **other).stderr
    (checkout / ".git/index").rename(index := checkout / ".git/next-index-1.lock")
    assert hint in run(checkout, "build", GIT_INDEX_FILE=str(index)).stderr
    shutil.rmtree(checkout / ".git")
    subprocess.run(["git", "init", "-q"], cwd=checkout.parent, check=True)
    assert "git add" not in run(checkout, "build").stderr


def test_an_archive_is_handed_over_without_secrets(checkout: Path) -> None:
    """Without git, Nix gets a copy of only the files that the flake reads."""
    (checkout / "services" / "app.py").touch()
    for secret in (".env", "services/.env", ".state/jwt-secret", "services/jwt-secret", "note"):
        (checkout / secret).write_text("secret")
    flake = nixw(checkout, "run")[1]
    assert flake.startswith("path:/")
    copy = Path(flake.removeprefix("path:"))
    found = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith("nix/nixw/")} == {
        "nixw",
        "nix/package.nix",
        "services/app.py",
    }
    assert nixw(checkout, "run")[1] == flake


def test_a_repository_of_another_user_is_handed_over_like_an_archive(checkout: Path) -> None:
    """Git refuses such a repository, for example to root in a container."""
    (checkout / ".git").mkdir()
    refusal = "fatal: unsafe: git config --global --add safe.directory ..."
    script(checkout / "bin/git", f"echo '{refusal}' >&2; exit 128")
    assert nixw(checkout, "run")[1].startswith("path:/")


def test_an_archive_is_handed_over_whole(checkout: Path) -> None:
    """The copy has each path in nix/package.nix; without flake.lock nothing would be pinned."""
    names = set(re.findall(r"\.\./(\.?\w[\w./-]*)", (ROOT / "nix/package.nix").read_text()))
    for name in names:
        path = checkout / name if (ROOT / name).is_file() else checkout / name / "file"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    copy = Path(nixw(checkout, "run")[1].removeprefix("path:"))
    assert {name for name in names if not (copy / name).exists()} == set()


@pytest.mark.parametrize(
    ("derivation", "works"), [("{}", True), ('{"outputHash": "sha256-…"}', False)]
)
def test_without_a_cache_a_full_store_suffices(
    checkout: Path, derivation: str, *, works: bool
) -> None:
    """If nothing must be downloaded, Nix runs with --offline."""
    (checkout / ".git").mkdir()
    script(checkout / "bin/curl", "exit 6")
    script(checkout / "bin/uname", "echo Darwin")
    if works:
        assert nixw(checkout, "run", DERIVATION=derivation) == ["--offline", "run", "."]
    else:
        with pytest.raises(AssertionError, match="no binary cache responds"):
            nixw(checkout, "run", DERIVATION=derivation)


@pytest.mark.parametrize(
    "environ",
    [
        {"BASH_FUNC_cd%%": "() { builtin cd $1 && ls; }", "BASH_FUNC_exec%%": "() { ls; }"},
        {"TAR_OPTIONS": "-v"},
    ],
    ids=["functions", "TAR_OPTIONS"],
)
def test_the_users_shell_has_no_effect(checkout: Path, environ: dict[str, str]) -> None:
    """Neither its variables nor, where /bin/sh is bash, its exported functions."""
    own = {"PATH": f"{checkout / 'bin'}:{os.environ['PATH']}", "HOME": str(checkout.parent)}
    done, plain = (
        call(["bash", str(checkout / "nixw"), "run"], values, cwd=checkout)
        for values in (own | environ, own)
    )
    assert (done.returncode, done.stdout) == (0, plain.stdout), done.stderr


def test_a_link_to_it_works(checkout: Path) -> None:
    """A link in a folder on PATH works and is unchanged."""
    (checkout / ".git").mkdir()
    folder = checkout.parent / "path"
    folder.mkdir()
    (folder / "nixw").symlink_to(checkout / "nixw")
    assert nixw(folder, "run", PATH=f"{checkout / 'bin'}:{os.environ['PATH']}") == ["run", "."]
    assert [path.name for path in folder.iterdir()] == ["nixw"]


def test_it_works_with_a_closed_stderr(checkout: Path) -> None:
    """The message that nixw prints is discarded by `2>&-`."""
    subprocess.run(["git", "init", "-q"], cwd=checkout, check=True)
    environ = {"PATH": f"{checkout / 'bin'}:{os.environ['PATH']}", "HOME": str(checkout.parent)}
    done = call(["sh", "-c", "./nixw build 2>&-"], environ, cwd=checkout)
    assert (done.returncode, "build" in done.stdout.splitlines()) == (0, True)
