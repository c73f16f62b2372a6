# The development shell: everything the stack and its tests need, running the checkout's code.
{
  pkgs,
  package,
  stack,
}:
let
  bashCompletion = "${pkgs.bash-completion}/share/bash-completion/bash_completion";
in
pkgs.mkShellNoCC {
  packages =
    stack.commands
    ++ package.programs
    ++ [
      package.pythonForTests
      pkgs.git
      pkgs.httpie
      pkgs.ruff
      pkgs.shellcheck
      pkgs.wrk
    ]
    ++ (if pkgs ? nixfmt then [ pkgs.nixfmt ] else [ ]);

  shellHook = ''
    # A value inherited from another checkout's shell would run that checkout's code.
    PLATFORM_CODE=
    # Whatever functions and aliases the user's bash has.
    \eval "$(${package.pythonForTests}/bin/python -I ${../devtools/locate.py})"

    # The interpreter with all packages, for editors (`code .`, .vscode/settings.json). Read-only, unlike
    # a venv.
    export VIRTUAL_ENV=${package.pythonForTests}

    # Where bash-completion and fish find completions at the first Tab after a command.
    XDG_DATA_DIRS=${stack.completions}/share:${pkgs.httpie}/share:''${XDG_DATA_DIRS:-/usr/local/share:/usr/share}
    export XDG_DATA_DIRS

    # Interactive shells only, not `nix develop -c` and direnv.
    case $- in
      *i*)
        # The user's bash may have loaded it already.
        if [ -z "''${BASH_COMPLETION_VERSINFO-}" ] && [ -r ${bashCompletion} ]; then
          . ${bashCompletion}
        fi
        # Once: nested shells inherit both.
        case ''${PS1-} in *"(platform)"*) ;; *) PS1="(platform) ''${PS1-}" ;; esac
        if [ "''${PLATFORM_SHELL-}" != "$PLATFORM_CHECKOUT" ]; then
          export PLATFORM_SHELL="$PLATFORM_CHECKOUT"
          echo "platform up -D                    start the stack in the background"
          echo "merchant pay 1250 USD --as alice  send a payment through it"
          echo "logs -f                           follow the logs of all processes"
          echo "pytest                            run the tests  (./nixw test: all checks)"
          echo "platform --help                   all commands"
        fi
        ;;
    esac
  '';
}
