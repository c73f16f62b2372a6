# nixpkgs' lib, as far as our flake uses it. The documentation is nixpkgs'.
let
  genAttrs =
    names: value:
    builtins.listToAttrs (
      map (name: {
        inherit name;
        value = value name;
      }) names
    );
  hasPrefix =
    prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
in
{
  inherit genAttrs;
  inherit (builtins) attrValues mapAttrs;

  escapeShellArg = text: "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] text}'";
  getExe = package: "${package}/bin/${package.meta.mainProgram or package.name}";
  optional = condition: value: if condition then [ value ] else [ ];
  optionalAttrs = condition: attrs: if condition then attrs else { };

  # A fileset is a list of paths here.
  fileset = {
    unions = sets: builtins.concatLists (map (set: if builtins.isList set then set else [ set ]) sets);
    toSource =
      { root, fileset }:
      builtins.path {
        name = "source";
        path = root;
        filter =
          path: _:
          builtins.any (
            wanted: path == wanted || hasPrefix "${wanted}/" path || hasPrefix "${path}/" wanted
          ) (map toString fileset);
      };
  };
}
