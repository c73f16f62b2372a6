# The host package set: the part of nixpkgs' interface that our flake uses, and no more, made from
# what a Debian or Ubuntu machine and the package registries give. nixw uses it instead of nixpkgs
# where no binary cache responds. It builds on Linux only, and evaluates anywhere.
{
  description = "The part of nixpkgs that our flake uses, for machines that reach no binary cache";

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
