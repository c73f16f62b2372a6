# python3.withPackages over the machine's Python: one download of all that requirements.txt locks,
# and from it, without the network, an environment for each set of packages that is asked for.
{
  runCommand,
  interpreter,
}:
let
  inherit (builtins)
    concatStringsSep
    filter
    isList
    isString
    listToAttrs
    match
    readFile
    split
    ;

  lines = filter isString (split "\n" (readFile ./requirements.txt));
  locked = map builtins.head (filter isList (map (match "([a-z0-9-]+)==.*") lines));

  # Builders see no environment; nixw leaves the registries' settings in this file.
  wheels = runCommand "python-wheels" { } ''
    . /nix/var/nixw/environment
    export HOME=$TMPDIR
    ${interpreter} -m venv $TMPDIR/pip
    $TMPDIR/pip/bin/pip download --quiet --no-cache-dir --disable-pip-version-check --no-deps \
      --only-binary :all: --require-hashes --requirement ${./requirements.txt} --dest $out
  '';

  # The bytecode is checked against nothing, since the store gives all files the same old date, by
  # which Python would take it for stale and compile anew at every start.
  environment =
    name: packages:
    runCommand name { } ''
      export HOME=$TMPDIR
      ${interpreter} -m venv --without-pip $out
      pip=$(echo ${wheels}/pip-*.whl)
      $out/bin/python "$pip/pip" install --quiet --no-index --no-compile \
        --disable-pip-version-check --find-links ${wheels} ${concatStringsSep " " packages}
      $out/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash $out/lib
    '';
in
{
  withPackages =
    choose:
    environment "python3-env" (
      choose (
        listToAttrs (
          map (name: {
            inherit name;
            value = name;
          }) locked
        )
      )
    );

  # The programs of one package, without a Python that could come before another one on PATH.
  program =
    name: programs:
    runCommand name { } ''
      mkdir -p $out/bin
      for program in ${concatStringsSep " " programs}; do
        ln -s ${environment "${name}-env" [ name ]}/bin/$program $out/bin/
      done
    '';
}
