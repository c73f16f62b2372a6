# One package for each that our flake names.
{ lib, system }:
let
  build = import ./build.nix { inherit system; };
  inherit (build) runCommand writeShellApplication;

  # What nixw found out about the machine, and put here.
  machine = builtins.fromJSON (builtins.readFile ./machine.json);

  python = import ./python.nix {
    inherit lib runCommand;
    interpreter = machine.python;
  };

  # Programs of the machine, by name and place.
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

  # A program of the Go module proxy, checked against the checksum database. The derivation knows
  # neither the place of Go nor the proxy, so that neither can make it build a second time.
  fromGo =
    name: module: linkerFlags:
    runCommand name { } ''
      . /nix/var/nixw/environment
      export HOME=$TMPDIR GOPATH=$TMPDIR/go GOMODCACHE=$TMPDIR/modules GOCACHE=$TMPDIR/cache
      export GOBIN=$out/bin GOTOOLCHAIN=local CGO_ENABLED=0
      $NIXW_GO install -modcacherw -trimpath -ldflags '-s -w ${linkerFlags}' ${module}
    '';

  # What the pin of flake.lock carries, as far as it is known.
  pinned = builtins.fromJSON (builtins.readFile ./pinned.json);
  processComposeVersion = "v${pinned.process-compose}";

  processCompose = {
    # With the version linked in, as releases have it, it does not ask for updates at each start.
    go =
      fromGo "process-compose" "github.com/f1bonacc1/process-compose@${processComposeVersion}"
        "-X github.com/f1bonacc1/process-compose/src/config.Version=${processComposeVersion}";
    stand-in = writeShellApplication {
      name = "process-compose";
      text = ''
        export PLATFORM_STANDIN_REASON=${lib.escapeShellArg (machine.reason or "")}
        exec ${
          python.withPackages (ps: [
            ps.pyyaml
            ps.shtab
          ])
        }/bin/python ${./standin.py} "$@"
      '';
    };
  };
in
build
// lib.genAttrs [
  "bash"
  "curl"
  "git"
  "shellcheck"
  "wrk"
] (program: fromMachine program { ${program} = "/usr/bin/${program}"; })
// {
  python3 = { inherit (python) withPackages; };
  httpie = python.program "httpie" [ "http" ] { http = "httpie.cli.definition.parser"; };
  ruff = python.program "ruff" [ "ruff" ] { };

  caddy = fromGo "caddy" "github.com/caddyserver/caddy/v2/cmd/caddy@v${pinned.caddy}" "";
  process-compose =
    processCompose.${machine.processCompose}
      or (fromMachine "process-compose" { process-compose = machine.processCompose; });

  # Debian's redis-server is the same file as its redis-check-rdb, which the package redis-tools has
  # without the system service that comes with the package redis-server.
  redis = fromMachine "redis" {
    redis-server = "/usr/bin/redis-check-rdb";
    redis-cli = "/usr/bin/redis-cli";
  };
  # Optional: without it the shell completes file names only.
  bash-completion = runCommand "bash-completion" { } ''
    mkdir -p $out/share
    ln -s /usr/share/bash-completion $out/share/
  '';
  coreutils = fromMachine "coreutils" { env = "/usr/bin/env"; };
  cacert = runCommand "cacert" { } ''
    mkdir -p $out/etc/ssl/certs
    ln -s /etc/ssl/certs/ca-certificates.crt $out/etc/ssl/certs/ca-bundle.crt
  '';
  bashInteractive = fromMachine "bash" { bash = "/usr/bin/bash"; }; # what `nix develop` starts
}
