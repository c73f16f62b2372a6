# The part of nixpkgs' lib that our flake uses; see its documentation.
let
  genAttrs =
    names: value:
    builtins.listToAttrs (
      map (name: {
        inherit name;
        value = value name;
      }) names
    );
  hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
  hasSuffix =
    suffix: text:
    let
      start = builtins.stringLength text - builtins.stringLength suffix;
    in
    start >= 0 && builtins.substring start (-1) text == suffix;

  # A path includes everything below it.
  member =
    set: path: type:
    if builtins.isFunction set then
      set path type
    else
      path == toString set || hasPrefix "${toString set}/" path || hasPrefix "${path}/" (toString set);
in
{
  inherit genAttrs hasSuffix;
  inherit (builtins)
    attrNames
    attrValues
    concatLists
    mapAttrs
    replaceStrings
    ;
  concatStrings = builtins.concatStringsSep "";

  escapeShellArg = text: "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] text}'";
  filterAttrs =
    keep: attrs:
    removeAttrs attrs (builtins.filter (name: !keep name attrs.${name}) (builtins.attrNames attrs));
  importTOML = file: builtins.fromTOML (builtins.readFile file);
  mapAttrs' =
    change: attrs:
    builtins.listToAttrs (map (name: change name attrs.${name}) (builtins.attrNames attrs));
  nameValuePair = name: value: { inherit name value; };
  optional = condition: value: if condition then [ value ] else [ ];
  optionalAttrs = condition: attrs: if condition then attrs else { };
  unique = builtins.foldl' (
    seen: item: if builtins.elem item seen then seen else seen ++ [ item ]
  ) [ ];

  # A fileset is a predicate on paths.
  fileset = {
    unions =
      sets: path: type:
      builtins.any (set: member set path type) sets;
    fileFilter =
      predicate: set: path: type:
      member set path type
      && (type == "directory" || predicate { hasExt = ext: hasSuffix ".${ext}" path; });
    toSource =
      { root, fileset }:
      builtins.path {
        name = "source";
        path = root;
        filter = member fileset;
      };
  };
}
