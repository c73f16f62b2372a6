# nixpkgs' lib, as far as our flake uses it. The documentation is nixpkgs'.
let
  inherit (builtins)
    any
    concatLists
    concatStringsSep
    isList
    listToAttrs
    stringLength
    substring
    ;

  hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
in
{
  inherit (builtins) attrValues mapAttrs;
  inherit hasPrefix;

  genAttrs =
    names: value:
    listToAttrs (
      map (name: {
        inherit name;
        value = value name;
      }) names
    );
  escapeShellArg = text: "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] text}'";
  getExe = package: "${package}/bin/${package.meta.mainProgram or package.name}";
  makeBinPath = packages: concatStringsSep ":" (map (package: "${package}/bin") packages);
  optional = condition: value: if condition then [ value ] else [ ];
  optionalAttrs = condition: attrs: if condition then attrs else { };

  # A fileset is a list of paths here.
  fileset = {
    unions = sets: concatLists (map (set: if isList set then set else [ set ]) sets);
    toSource =
      { root, fileset }:
      builtins.path {
        name = "source";
        path = root;
        filter =
          path: _:
          any (
            wanted: path == wanted || hasPrefix "${wanted}/" path || hasPrefix "${path}/" wanted
          ) (map toString fileset);
      };
  };
}
