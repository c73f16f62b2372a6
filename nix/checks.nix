# What `nix flake check` runs. Each check prints, and leaves as its output, one line
# `N passed, N failed[, N skipped]` for nixw and CI to add up.
{
  lib,
  pkgs,
  package,
  image-configs,
}:
let
  check =
    name: inputs: variables: command:
    pkgs.runCommand name
      (
        variables
        // {
          nativeBuildInputs = inputs;
          # The tests speak to servers of their own on loopback, which macOS forbids unless told.
          __darwinAllowLocalNetworking = true;
        }
      )
      ''
        # Short, because the path of a Unix socket below it has room for about 100 bytes.
        TMPDIR=$(mktemp -d /tmp/check.XXXXXX)
        export TMPDIR HOME="$TMPDIR" PLATFORM_STATE="$TMPDIR/state"
        cp -r ${package.checkedSource} "$TMPDIR/src"
        chmod -R u+w "$TMPDIR/src"
        cd "$TMPDIR/src"
        export PYTHONPATH="$PWD" COUNTS="$TMPDIR/counts"

        # Nix's sandbox takes every process along when a check is interrupted. The host package set has
        # none: there a PID namespace does it, where the system grants one.
        alone="unshare --map-current-user --pid --fork --kill-child --mount-proc"
        $alone true 2>/dev/null || alone=""
        code=0
        $alone bash -euc ${lib.escapeShellArg command} || code=$?
        [ -s "$COUNTS" ] || echo "0 passed, 1 failed" >"$COUNTS"
        cat "$COUNTS"
        [ "$code" -ne 0 ] || cp "$COUNTS" "$out"
        chmod -R u+w "$TMPDIR"
        rm -rf "$TMPDIR"
        exit "$code"
      '';

  testInputs = package.programs ++ [
    package.pythonForTests
    pkgs.wrk
  ];
  pytest =
    name: variables: words:
    check name testInputs variables ''
      HYPOTHESIS_STORAGE_DIRECTORY="$TMPDIR/hypothesis" PYTHONPATH="$PWD:${./pytest}" \
        pytest -p counts ${words}
    '';
in
{
  unit = pytest "unit" { } "tests --ignore=tests/stack --ignore=tests/chaos --ignore=tests/images";
  stack = pytest "stack" { } "tests/stack";
  images = pytest "images" { IMAGE_CONFIGS = image-configs; } "tests/images";

  lint = check "lint" (
    package.programs
    ++ [
      package.pythonForTests
      pkgs.ruff
      pkgs.shellcheck
    ]
    ++ lib.optional (pkgs ? nixfmt) pkgs.nixfmt
  ) { } "bash nix/lint.sh";
}
// lib.optionalAttrs (builtins.pathExists ../tests/chaos) {
  chaos = pytest "chaos" { } "tests/chaos";
}
