# Programs: the stack (`platform`), and the commands that run one Python module each.
{
  lib,
  pkgs,
  package,
}:
let
  # `nix run .#<name>`, and `<name>` in the development shell, where Tab completes the arguments of
  # `parser` (of the module, if not named). A new command is one entry here.
  modules = {
    merchant = {
      module = "devtools.merchant";
      parser = "devtools.merchant.__main__.parser";
      description = "pays through the router and follows the payment to its end";
    };
    deadletters = {
      module = "devtools.deadletters";
      description = "lists and replays payments that could not be charged";
    };
    logs = {
      module = "devtools.logs";
      description = "shows the logs of all processes in time order; follows a request or a transaction";
    };
    doctor = {
      module = "devtools.doctor";
      parser = "devtools.doctor.__main__.parser";
      description = "checks versions, ports, settings, state and health";
    };
    new = {
      module = "devtools.new";
      parser = "devtools.new.__main__.parser";
      description = "creates a service from the template, or removes one";
      inputs = [
        pkgs.git
        pkgs.ruff
      ];
    };
  };

  platformOf =
    setting:
    commandOf setting "platform" {
      module = "devtools.stack";
      description = "starts the stack; arguments go on to process-compose";
    };
  platform = platformOf fromStore;

  runtimeInputs = package.programs ++ [ package.python ];

  # Runs the code in the store, even within a development shell. Outside a checkout
  # (`nix run github:…`) the state is in the user's state folder, not in the current one.
  fromStore = ''
    export PLATFORM_CODE=${package.code}
    PLATFORM_CHECKOUT=''${PLATFORM_CHECKOUT:-''${XDG_STATE_HOME:-~/.local/state}/platform}
    export PLATFORM_CHECKOUT
  '';

  commandOf =
    setting: name:
    {
      module,
      description,
      inputs ? [ ],
      ...
    }:
    pkgs.writeShellApplication {
      inherit name;
      runtimeInputs = runtimeInputs ++ inputs;
      text = setting + package.launch module;
      meta.description = description;
    };

  # Shell completions, loaded at the first Tab after a command. They run the checkout's code, so that a
  # change needs no rebuild; with -P none of the current folder.
  completionOf =
    name:
    {
      module,
      parser ? "${module}.parser",
      ...
    }:
    let
      ask = shell: "python -P -m shtab --shell ${shell} --prefix ${name} ${parser} 2>/dev/null";
    in
    ''
      echo 'eval "$(${ask "bash"})"' >$bash/${name}
      echo '${ask "fish"} | source' >$fish/${name}.fish
    '';

  completions = pkgs.runCommand "platform-completions" { } ''
    bash=$out/share/bash-completion/completions fish=$out/share/fish/vendor_completions.d
    mkdir -p $bash $fish
    cp ${./platform/complete.sh} $bash/process-compose
    cp ${./platform/complete.sh} $bash/platform
    echo 'process-compose completion fish 2>/dev/null | source' >$fish/process-compose.fish
    cp ${./platform/complete.fish} $fish/platform.fish
    ${lib.concatStrings (lib.attrValues (lib.mapAttrs completionOf modules))}
  '';

  # Not in the development shell: the job queues that it compares are many packages.
  bench = pkgs.writeShellApplication {
    name = "bench";
    runtimeInputs = package.programs ++ [
      package.pythonForBench
      pkgs.wrk
    ];
    text = ''
      export PLATFORM_CODE=${package.bench}
      eval "$(python -I ${../devtools/locate.py})"
      exec python -P -m bench "$@"
    '';
    meta.description = "measures the platform against its theoretical best";
  };

  programs = lib.mapAttrs (commandOf fromStore) modules // {
    inherit bench;
    default = platform;
    reset = pkgs.writeShellApplication {
      name = "reset-platform";
      text = ''exec ${platform}/bin/platform reset "$@"'';
      meta.description = "stops the stack and deletes its state, after asking";
    };
  };
in
{
  inherit completions;

  # `nix run .#<name>` runs the program of that name.
  packages = programs;

  # For the development shell, which has PLATFORM_CODE and PYTHONPATH set to the checkout.
  commands = [
    (platformOf "")
  ]
  ++ lib.attrValues (lib.mapAttrs (commandOf "") modules);
}
