# Container images of the stack's processes, from the packages and the code that run locally. What an
# image runs is said here once; from it come the image, where the package set can make one, and
# `image-configs`, a file with which the tests run exactly the same commands.
{
  lib,
  pkgs,
  package,
  revision,
}:
let
  # Nobody's files but ours: an id that no distribution gives to anybody.
  user = "65532:65532";

  second = 1000000000; # in the nanoseconds that the format wants
  healthcheck = words: {
    Test = [ "CMD" ] ++ words;
    Interval = 10 * second;
    Timeout = 2 * second;
    Retries = 3;
    # While it starts, a failure counts for nothing, and an answer is there at once.
    StartPeriod = 20 * second;
    StartInterval = second / 2;
  };

  nameOf = lib.replaceStrings [ "_" ] [ "-" ];
  # Those of the local stack.
  ports = lib.mapAttrs' (
    folder: service: lib.nameValuePair (nameOf folder) (toString (8000 + service.port_offset))
  ) package.services;

  service =
    folder:
    let
      python = package.pythonOf folder;
    in
    {
      # Apart, so that other words run a command of this service: `-m services.auth_api.users list`.
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
      # Caddy cannot ask anybody, so curl is here too. Not every version of it reads variables: with
      # another HTTP_PORT the health check needs another address.
      Healthcheck = healthcheck [
        "${pkgs.curl}/bin/curl"
        "-fsS"
        "-m"
        "1"
        "http://127.0.0.1:${ports.router}/health"
      ];
    };

    # Open to all who reach it, unless a secret says who may do what (deploy/prepare.sh makes one).
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
        "/run/secrets/redis*.conf" # a pattern, which need not match
      ];
      Env = [ ];
      WorkingDir = "/data";
      Healthcheck = healthcheck [
        "${pkgs.redis}/bin/redis-cli"
        "-e"
        "-p"
        ports.redis
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

  # Without a time: the same sources make the same image, to the byte.
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
      # /data is for who keeps something: a new volume that is mounted there takes its owner over.
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
        description = builtins.toJSON {
          inherit configs;
          packages = package.packagesOf;
        };
      }
      ''
        printf '%s\n' "$description" >$out
      '';
}
# An image has programs for Linux in it, from a package set whose programs need nothing around them.
// lib.optionalAttrs (pkgs ? dockerTools && pkgs.stdenv.hostPlatform.isLinux) (
  lib.mapAttrs' (name: config: lib.nameValuePair "image-${name}" (imageOf name config)) configs
)
