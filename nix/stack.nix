# What is started: the stack (`platform`), and the commands that run one module of ours.
{
  lib,
  pkgs,
  package,
}:
let
  # `nix run .#<name>`, and `<name>` in the development shell. A further command is one entry here.
  modules = {
    merchant = {
      module = "services.merchant";
      description = "pays through the router and follows the payment to its end";
    };
    deadletters = {
      module = "services.psp_connector.deadletters";
      description = "lists and replays what could not be charged";
    };
    logs = {
      module = "services.showlogs";
      description = "shows what all processes say, in time order; follows a request or a transaction";
    };
  };

  runtimeInputs = package.programs ++ [ package.python ];

  # The code is the one in the store, whatever a surrounding development shell says.
  fromStore = ''
    export PLATFORM_CODE=${package.code} PYTHONPATH=${package.code}
  '';

  platformOf =
    setting:
    pkgs.writeShellApplication {
      name = "platform";
      inherit runtimeInputs;
      text = ''
        ${setting}
        # shellcheck source=/dev/null
        . ${./platform}/env.sh
        # shellcheck source=/dev/null
        . ${./platform}/platform.sh
      '';
      meta.description = "starts the stack; words go on to process-compose";
    };

  commandOf =
    setting: name:
    { module, description }:
    pkgs.writeShellApplication {
      inherit name;
      runtimeInputs = [ package.python ];
      text = ''
        ${setting}
        exec python -m ${module} "$@"
      '';
      meta.description = description;
    };

  programs = lib.mapAttrs (commandOf fromStore) modules // {
    default = platformOf fromStore;
  };
in
{
  packages = programs;

  apps = lib.mapAttrs (_: program: {
    type = "app";
    program = lib.getExe program;
    meta = { inherit (program.meta) description; };
  }) programs;

  # For the development shell, which has PLATFORM_CODE and PYTHONPATH set to the checkout.
  commands = [ (platformOf "") ] ++ lib.attrValues (lib.mapAttrs (commandOf "") modules);
}
