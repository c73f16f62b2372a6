# The host package set: only the part of nixpkgs' interface that our flake uses, made from packages of
# Debian or Ubuntu and of the package registries. nixw uses it instead of nixpkgs if no binary cache
# responds. Builds on Linux only; evaluates anywhere.
{
  description = "The part of nixpkgs that our flake uses, for machines without access to a binary cache";

  outputs =
    _:
    let
      lib = import ./lib.nix;
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ] (system: import ./packages.nix { inherit lib system; });
    };
}
