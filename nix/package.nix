# The code as it is run and as it is tested, and the Python packages it needs.
{ lib, pkgs }:
let
  inherit (lib) fileset;

  code = [
    ../.env.example # for nix/platform/inherited.sh
    ../nix/host/pinned.json # for doctor
    ../devtools
    ../process-compose.yaml
    (fileset.fileFilter (file: !file.hasExt "md") ../services)
  ];
  sourceOf =
    files:
    fileset.toSource {
      root = ../.;
      fileset = fileset.unions files;
    };

  # What each service says of itself, by its folder.
  services = lib.mapAttrs (folder: _: lib.importTOML (../services + "/${folder}/service.toml")) (
    lib.filterAttrs (
      folder: _: builtins.pathExists (../services + "/${folder}/service.toml")
    ) (builtins.readDir ../services)
  );
  packagesOf = lib.mapAttrs (_: service: service.packages or [ ]) services;

  # For the commands of devtools/.
  devPackages = [
    "httpx"
    "psutil"
    "python-dotenv"
    "watchfiles"
  ];

  choose = names: ps: map (name: ps.${name}) names;
  runtimePackages = choose (lib.unique (devPackages ++ lib.concatLists (lib.attrValues packagesOf)));

  testPackages = ps: [
    ps.hypothesis
    ps.mypy
    ps.pygal
    ps.pytest
    ps.pytest-timeout
    ps.pyyaml
    ps.schemathesis
    ps.shtab
    ps.types-psutil
    ps.types-pyyaml
  ];

  # The benchmark, and the job queues it compares with. nixpkgs does not have all of them.
  benchPackages =
    ps:
    [
      ps.celery
      ps.dramatiq
      ps.huey
      ps.pygal
      ps.pyyaml
      ps.rq
    ]
    ++ lib.optional (ps ? saq) ps.saq
    ++ lib.optional (ps ? taskiq && ps ? taskiq-redis) ps.taskiq-redis;

  python = pkgs.python3.withPackages runtimePackages;

  # Compiled beforehand, because nothing can be written here later and start-up counts.
  compiled =
    name: folders: files:
    pkgs.runCommand name { nativeBuildInputs = [ python ]; } ''
      cp -r ${sourceOf files} $out
      chmod -R u+w $out
      cd $out
      python -m compileall -q --invalidation-mode unchecked-hash ${folders}
    '';

  # Every program of ours begins with it.
  inherited = ''
    # shellcheck source=/dev/null
    . ${./platform}/inherited.sh
  '';

  # process-compose empties its log file at every command, even `process-compose list`: only those that
  # start something, with the checkout's `.env`, may have the stack's.
  processCompose = pkgs.writeShellApplication {
    name = "process-compose";
    text = ''
      ${inherited}
      case "''${1-}" in
        "" | up | run | -*) exec python -m devtools.envfile ${pkgs.process-compose}/bin/process-compose "$@" ;;
      esac
      [ -z "''${PC_LOG_FILE-}" ] || export PC_LOG_FILE="''${PC_LOG_FILE%.log}-client.log"
      exec ${pkgs.process-compose}/bin/process-compose "$@"
    '';
  };
in
{
  inherit inherited python;
  pythonForTests = pkgs.python3.withPackages (ps: runtimePackages ps ++ testPackages ps);
  pythonForBench = pkgs.python3.withPackages (ps: runtimePackages ps ++ benchPackages ps);

  # What the processes of process-compose.yaml and `logs` find on PATH besides Python.
  programs = [
    pkgs.bash
    pkgs.caddy
    pkgs.coreutils
    pkgs.curl
    pkgs.lnav
    pkgs.redis
    processCompose
  ];

  # What each check reads and nothing else, so that a change reruns only the checks that it concerns.
  checkedSources =
    let
      testsIn =
        names:
        map (name: ../tests + "/${name}") (
          [
            "conftest.py"
            "support.py"
          ]
          ++ names
        );
      apart = [
        "chaos"
        "images"
        "pages"
        "stack"
      ];
      common = code ++ [
        ../flake.lock # for doctor
        ../nix/platform
        ../pyproject.toml
      ];
      wide = common ++ [
        ../.ci
        ../.envrc
        ../bench
        ../deploy
        ../nix
        ../nixw
      ];
      all = wide ++ [
        ../CONTRIBUTING.md
        ../README.md
        ../docs
        ../flake.nix
        ../services
        ../tests
      ];
    in
    lib.mapAttrs (_: sourceOf) {
      lint = all;
      pages = all;
      unit =
        wide
        ++ testsIn (
          [ "stack/stack.py" ]
          ++ lib.filter (name: !lib.elem name apart) (lib.attrNames (builtins.readDir ../tests))
        );
      stack = common ++ [ ../docs/configuration.md ] ++ testsIn [ "stack" ];
      chaos =
        common
        ++ testsIn [
          "chaos"
          "stack/stack.py"
        ];
      images = common ++ testsIn [ "images" ];
    };

  code = compiled "platform-code" "devtools services" code;

  # Its stack is started as the tests start theirs.
  bench = compiled "platform-bench" "bench devtools services tests" (
    code
    ++ [
      ../bench
      ../tests/support.py
      ../tests/stack/stack.py
    ]
  );

  # For a container image: what one folder of services/ needs and nothing else, code and packages.
  inherit packagesOf services;
  codeOf =
    folder:
    compiled "platform-${folder}" "services" [
      ../services/__init__.py
      ../services/common
      (../services + "/${folder}")
    ];
  pythonOf = folder: pkgs.python3.withPackages (choose packagesOf.${folder});
}
