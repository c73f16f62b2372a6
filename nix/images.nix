# Container images of the stack's processes, from the packages and the code that run locally. Each
# configuration is defined once, for the image, where the package set can build one, and for
# `image-configs`, a file from which the tests run exactly the same commands.
{
  lib,
  pkgs,
  package,
  revision,
}:
let
  # An id that no distribution assigns, so it owns only our files.
  user = "65532:65532";

  second = 1000000000; # in nanoseconds, as the format requires
  healthcheck = command: {
    Test = [ "CMD" ] ++ command;
    Interval = 10 * second;
    Timeout = 2 * second;
    Retries = 3;
    # Failures during the start period do not count.
    StartPeriod = 20 * second;
    StartInterval = second / 2;
  };

  nameOf = lib.replaceStrings [ "_" ] [ "-" ];
  # As in the local stack.
  ports = lib.mapAttrs' (
    folder: service: lib.nameValuePair (nameOf folder) (toString (8000 + service.port_offset))
  ) package.services;

  service =
    folder:
    let
      python = package.pythonOf folder;
    in
    {
      # Separate, so that arguments can run another command: `-m services.auth_api.users list`.
      Entrypoint = [ "${python}/bin/python" ];
      Cmd = [
        "-m"
        "services.${folder}"
      ];
      Env = [
        "HTTP_HOST=0.0.0.0"
        "HTTP_PORT=${ports.${nameOf folder}}"
        "PATH=${python}/bin"
        "PYTHONPATH=${package.codeOf folder}"
        "PYTHONUNBUFFERED=1"
        # For Redis' TLS; Stripe's library brings its own list.
        "SSL_CERT_FILE=${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt"
      ];
      Healthcheck = healthcheck [
        "${python}/bin/python"
        "-m"
        "services.common.healthcheck"
      ];
    };

  python = lib.filterAttrs (_: service: service ? packages) package.services;
  images = lib.mapAttrs' (folder: _: lib.nameValuePair (nameOf folder) (service folder)) python // {
    router = {
      Entrypoint = [ "${pkgs.caddy}/bin/caddy" ];
      Cmd = [
        "run"
        "--adapter"
        "caddyfile"
        "--config"
        "${../services/router/Caddyfile}"
      ];
      Env = [
        "CADDY_STATE=/tmp/caddy"
        "HOME=/tmp"
        "HTTP_HOST=0.0.0.0"
        "HTTP_PORT=${ports.router}"
      ];
      # Caddy has no HTTP client, so curl is included. Not every curl expands variables: with another
      # HTTP_PORT the health check needs another address.
      Healthcheck = healthcheck [
        "${pkgs.curl}/bin/curl"
        "-fsS"
        "--noproxy"
        "*"
        "-m"
        "1"
        "http://127.0.0.1:${ports.router}/health"
      ];
    };

    # Without authentication, unless a secret is set (deploy/prepare.sh creates one, with the user of
    # the health check).
    redis = {
      Entrypoint = [ "${pkgs.redis}/bin/redis-server" ];
      Cmd = [
        "${../services/redis/redis.conf}"
        "--port"
        ports.redis
        "--bind"
        "0.0.0.0"
        "--protected-mode"
        "no"
        "--include"
        "/run/secrets/redis*.conf" # a pattern, so it may be missing
      ];
      Env = [ ];
      WorkingDir = "/data";
      Healthcheck = healthcheck [
        "${pkgs.redis}/bin/redis-cli"
        "-e"
        "-p"
        ports.redis
        "--user"
        "health"
        "--pass"
        "none"
        "--no-auth-warning"
        "ping"
      ];
    };
  };

  configs = lib.mapAttrs (
    name: image:
    {
      User = user;
      WorkingDir = "/";
      ExposedPorts."${ports.${name}}/tcp" = { };
      StopSignal = "SIGTERM";
      Labels = {
        "org.opencontainers.image.title" = name;
        "org.opencontainers.image.description" = "${name} of the payment platform";
      };
    }
    // image
  ) images;

  # No timestamps: the same sources build the same image, to the byte.
  imageOf =
    name: config:
    pkgs.dockerTools.streamLayeredImage {
      name = "platform/${name}";
      tag = "latest";
      config = config // {
        Labels =
          config.Labels
          // lib.optionalAttrs (revision != null) { "org.opencontainers.image.revision" = revision; };
      };
      contents = [
        (pkgs.dockerTools.fakeNss.override {
          extraPasswdLines = [ "platform:x:${user}:platform:/tmp:/noshell" ];
          extraGroupLines = [ "platform:x:65532:" ];
        })
      ];
      # For persistent data: a new volume mounted on /data takes over its owner.
      fakeRootCommands = ''
        mkdir -m 1777 tmp
        mkdir -m 700 data
        chown ${user} data
      '';
      meta.description = "container image of ${name}: a program that writes it to standard output";
    };
in
{
  image-configs =
    pkgs.runCommand "image-configs"
      {
        description = builtins.toJSON configs;
      }
      ''
        printf '%s\n' "$description" >$out
      '';
}
# Images need Linux and a package set with self-contained programs.
// lib.optionalAttrs (pkgs ? dockerTools && pkgs.stdenv.hostPlatform.isLinux) (
  lib.mapAttrs' (name: config: lib.nameValuePair "image-${name}" (imageOf name config)) configs
)
