{
  description = "A small payment platform for local development: one command starts all of it, natively";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs, ... }:
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
          images = import ./nix/images.nix {
            inherit lib pkgs package;
            revision = self.rev or null;
          };
          packages = stack.packages // images;
          formatter = import ./nix/formatter.nix { inherit lib pkgs; };
        in
        {
          inherit packages formatter;
          devShells.default = import ./nix/shell.nix { inherit pkgs package stack; };
          checks = import ./nix/checks.nix {
            inherit
              lib
              pkgs
              system
              package
              packages
              formatter
              ;
          };
        };

      bySystem = lib.genAttrs systems outputsOf;
    in
    lib.genAttrs [
      "packages"
      "devShells"
      "checks"
      "formatter"
    ] (output: lib.mapAttrs (_: outputs: outputs.${output}) bySystem);
}
