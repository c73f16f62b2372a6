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
    # A value from outside, say of another checkout's shell, would run that one's code.
    unset PLATFORM_CODE
    . ${./platform}/env.sh

    # By which an editor that is started from here (`code .`), or reads .vscode/settings.json, finds the
    # interpreter with all packages. It is no venv that anything could be installed to.
    export VIRTUAL_ENV=${package.pythonForTests}

    # Where bash-completion and fish look for completions, at the first Tab after a command.
    XDG_DATA_DIRS=${stack.completions}/share:${pkgs.httpie}/share:''${XDG_DATA_DIRS:-/usr/local/share:/usr/share}
    export XDG_DATA_DIRS

    # Only for somebody who is going to type: not for `nix develop -c`, not for direnv.
    case $- in
      *i*)
        # Perhaps the user's own bash has it already.
        if [ -z "''${BASH_COMPLETION_VERSINFO-}" ] && [ -r ${bashCompletion} ]; then
          . ${bashCompletion}
        fi
        echo "process-compose up        start the stack here   (platform up -D: in the background)"
        echo "merchant pay 1250 USD --as alice                 send a payment through it"
        echo "logs -f                   watch what all processes say"
        echo "pytest                    run the tests          (./nixw flake check: all checks)"
        ;;
    esac
  '';
}
