# The development shell: everything the stack and its tests need, running the checkout's code.
{
  pkgs,
  package,
  stack,
}:
pkgs.mkShellNoCC {
  packages =
    package.programs
    ++ stack.commands
    ++ [
      package.pythonForTests
      pkgs.git
      pkgs.httpie
      pkgs.ruff
      pkgs.shellcheck
    ]
    ++ (if pkgs ? nixfmt then [ pkgs.nixfmt ] else [ ]);

  shellHook = ''
    # A value from outside, say of another checkout's shell, would run that one's code.
    unset PLATFORM_CODE
    . ${./platform}/env.sh

    # Only for somebody who is going to type: not for `nix develop -c`, not for direnv.
    case $- in
      *i*)
        echo "process-compose up        start the stack here   (platform up -D: in the background)"
        echo "merchant pay 1250 USD --as alice                 send a payment through it"
        echo "pytest                    run the tests          (./nixw flake check: all checks)"
        ;;
    esac
  '';
}
