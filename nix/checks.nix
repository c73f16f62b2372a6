# The checks of `nix flake check`. Each check prints, and has as its output, one line
# `N passed, N failed[, N skipped]` for nixw and CI to add up.
{
  lib,
  pkgs,
  system,
  package,
  # Built packages by name: programs and images.
  packages,
  formatter,
}:
let
  check =
    name: inputs: variables: command:
    pkgs.runCommand name
      (
        variables
        // {
          nativeBuildInputs = inputs;
          # The tests start servers on loopback, which macOS forbids by default.
          __darwinAllowLocalNetworking = true;
        }
      )
      ''
        # Short, because the path of a Unix socket is limited to about 100 bytes.
        TMPDIR=$(mktemp -d /tmp/check.XXXXXX)
        # Nixpkgs sets them to a missing file, which httpx loads even for http://.
        unset SSL_CERT_FILE NIX_SSL_CERT_FILE
        export TMPDIR HOME="$TMPDIR" PLATFORM_STATE="$TMPDIR/state"
        cp -r ${package.checkedSources.${name} or package.code} "$TMPDIR/src"
        chmod -R u+w "$TMPDIR/src"
        cd "$TMPDIR/src"
        export PLATFORM_CODE="$PWD" PYTHONPATH="$PWD" COUNTS="$TMPDIR/counts"

        # If a check is interrupted, Nix's sandbox kills all processes. The host package set has no
        # sandbox, so a PID namespace does it if the system permits one.
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

  # nixpkgs has Chromium for Linux only.
  isLinux = lib.hasSuffix "linux" system;

  pytest =
    name: variables: options:
    check name
      (
        package.programs
        ++ lib.optional (name == "browser") pkgs.chromium
        ++ lib.optional (name == "browser") pkgs.chromedriver
        ++ [
          package.pythonForTests
          pkgs.git
          pkgs.ruff
          pkgs.wrk
        ]
        # `mount` and `unshare` for the images; in the host package set they are the machine's.
        ++ lib.optional (pkgs ? util-linux && pkgs.stdenv.hostPlatform.isLinux) pkgs.util-linux
      )
      variables
      ''
        HYPOTHESIS_STORAGE_DIRECTORY="$TMPDIR/hypothesis" PYTHONPATH="$PWD:${./pytest}" \
          pytest -p counts ${options}
      '';
in
{
  unit = pytest "unit" { } "-n auto tests";
  pages = pytest "pages" { } "tests/pages";
  new = pytest "new" { } "tests/new";
  stack = pytest "stack" { } "tests/stack";
  chaos = pytest "chaos" { } "tests/chaos";
  images = pytest "images" { IMAGE_CONFIGS = packages.image-configs; } "tests/images";

  lint = check "lint" (
    package.programs
    ++ [
      package.pythonForTests
      formatter
      pkgs.ruff
      pkgs.shellcheck
    ]
    ++ lib.optional (pkgs ? nixfmt) pkgs.nixfmt
  ) { } "bash nix/lint.sh";

  # Builds all packages, and lints scripts, which the host package set does not do itself.
  packages =
    check "packages" [ pkgs.shellcheck ] { packages = [ formatter ] ++ lib.attrValues packages; }
      ''
        passed=0
        for package in $packages; do
          [ ! -d "$package/bin" ] || shellcheck "$package"/bin/*
          passed=$((passed + 1))
        done
        echo "$passed passed, 0 failed" >"$COUNTS"
      '';
}
// lib.optionalAttrs isLinux {
  # The console in a real browser.
  browser = pytest "browser" {
    BROWSER_REQUIRED = "1";
    FONTCONFIG_FILE = pkgs.makeFontsConf { fontDirectories = [ pkgs.dejavu_fonts ]; };
  } "tests/browser";
}
