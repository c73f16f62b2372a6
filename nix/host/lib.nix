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
  inherit (builtins)
    attrNames
    attrValues
    concatLists
    filter
    mapAttrs
    replaceStrings
    ;
  concatStrings = builtins.concatStringsSep "";

  escapeShellArg = text: "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] text}'";
  getExe = package: "${package}/bin/${package.meta.mainProgram or package.name}";
  hasSuffix =
    suffix: text:
    let
      start = builtins.stringLength text - builtins.stringLength suffix;
    in
    start >= 0 && builtins.substring start (-1) text == suffix;
  optional = condition: value: if condition then [ value ] else [ ];
  optionalAttrs = condition: attrs: if condition then attrs else { };
  unique = builtins.foldl' (
    seen: item: if builtins.elem item seen then seen else seen ++ [ item ]
  ) [ ];

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
