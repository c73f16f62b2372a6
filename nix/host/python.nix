# python3.withPackages over the machine's Python: one download of all that a requirements file
# locks, and from it, without the network, an environment for each set of packages that is asked
# for. What only the benchmark needs has a file of its own, so that nobody else downloads it.
{
  lib,
  runCommand,
  interpreter,
}:
let
  nameOf = line: if builtins.isString line then builtins.match "([a-z0-9-]+)==.*" line else null;
  lockedIn =
    requirements:
    builtins.concatLists (
      builtins.filter builtins.isList (
        map nameOf (builtins.split "\n" (builtins.readFile requirements))
      )
    );
  locked = lockedIn ./requirements.txt;
  lockedForBench = lockedIn ./requirements-bench.txt;

  # Builders see no environment; nixw leaves the registries' settings in this file.
  download =
    name: requirements:
    runCommand name { } ''
      . /nix/var/nixw/environment
      export HOME=$TMPDIR
      ${interpreter} -m venv $TMPDIR/pip
      $TMPDIR/pip/bin/pip download --quiet --no-cache-dir --disable-pip-version-check --no-deps \
        --only-binary :all: --require-hashes --requirement ${requirements} --dest $out
    '';
  wheels = download "python-wheels" ./requirements.txt;
  wheelsForBench = download "python-wheels-bench" ./requirements-bench.txt;

  placesOf =
    packages:
    if builtins.all (package: builtins.elem package locked) packages then
      "--find-links ${wheels}"
    else
      "--find-links ${wheels} --find-links ${wheelsForBench}";

  # The bytecode is checked against nothing, since the store gives all files the same old date, by
  # which Python would take it for stale and compile anew at every start.
  environment =
    name: packages:
    runCommand name { } ''
      export HOME=$TMPDIR
      ${interpreter} -m venv --without-pip $out
      pip=$(echo ${wheels}/pip-*.whl)
      $out/bin/python "$pip/pip" install --quiet --no-index --no-compile \
        --disable-pip-version-check ${placesOf packages} ${builtins.concatStringsSep " " packages}
      $out/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash $out/lib
    '';
in
{
  withPackages =
    choose: environment "python3-env" (choose (lib.genAttrs (locked ++ lockedForBench) (name: name)));

  # The programs of one package, without a Python that could come before another one on PATH. Of
  # `parsers` (by program, where its argparse parser is) the completions are made that nixpkgs has.
  program =
    name: programs: parsers:
    let
      its = environment "${name}-env" [
        name
        "shtab"
      ];
      complete = program: parser: ''
        ${its}/bin/python -m shtab --shell bash --prog ${program} --prefix ${program} ${parser} \
          >$out/share/bash-completion/completions/${program}.bash
      '';
    in
    runCommand name { } ''
      mkdir -p $out/bin $out/share/bash-completion/completions
      for program in ${builtins.concatStringsSep " " programs}; do
        ln -s ${its}/bin/$program $out/bin/
      done
      export HOME=$TMPDIR
      ${builtins.concatStringsSep "\n" (lib.attrValues (lib.mapAttrs complete parsers))}
    '';
}
