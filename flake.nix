{
  description = "A small payment platform for local development: one command starts all of it, natively";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;

      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ];

      outputsOf =
        system:
        let
          pkgs = nixpkgs.legacyPackages.${system};
          package = import ./nix/package.nix { inherit lib pkgs; };
          stack = import ./nix/stack.nix { inherit lib pkgs package; };
        in
        {
          inherit (stack) packages apps;
          devShells.default = import ./nix/shell.nix { inherit pkgs package stack; };
          checks = import ./nix/checks.nix { inherit lib pkgs package; };
          formatter = import ./nix/formatter.nix { inherit pkgs; };
        };

      bySystem = lib.genAttrs systems outputsOf;
    in
    lib.genAttrs [
      "packages"
      "apps"
      "devShells"
      "checks"
      "formatter"
    ] (output: lib.mapAttrs (_: outputs: outputs.${output}) bySystem);
}
