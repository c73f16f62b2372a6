# python3.withPackages for the machine's Python: an environment for each requested set, from the packages
# that the requirements files lock. Each file is one download, made when one of its packages is first
# needed, so that starting the stack downloads neither test tools nor the benchmark's job queues.
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
      builtins.filter builtins.isList (map nameOf (builtins.split "\n" (builtins.readFile requirements)))
    );

  # Builders have no environment; nixw writes the registries' settings to this file.
  download =
    name: requirements:
    runCommand name { } ''
      . /nix/var/nixw/environment
      export HOME=$TMPDIR
      ${interpreter} -m venv $TMPDIR/pip
      $TMPDIR/pip/bin/pip download --quiet --no-cache-dir --disable-pip-version-check --no-deps \
        --only-binary :all: --require-hashes --requirement ${requirements} --dest $out
    '';
  lock = name: requirements: {
    names = lockedIn requirements;
    wheels = download name requirements;
  };
  run = lock "python-wheels" ./requirements.txt;
  dev = lock "python-wheels-dev" ./requirements-dev.txt;
  bench = lock "python-wheels-bench" ./requirements-bench.txt;

  # For a set of packages, the first lock that has each.
  locksOf =
    packages:
    let
      missingIn = lock: builtins.filter (name: !builtins.elem name lock.names);
      notRun = missingIn run packages;
      notDev = missingIn dev notRun;
    in
    [ run ] ++ lib.optional (notRun != notDev) dev ++ lib.optional (notDev != [ ]) bench;

  findLinks =
    packages: lib.concatStrings (map (lock: "--find-links ${lock.wheels} ") (locksOf packages));

  # Bytecode is unchecked: all files in the store have the same old date, so Python would consider it
  # stale and recompile at every start.
  environment =
    name: packages:
    runCommand name { } ''
      export HOME=$TMPDIR
      ${interpreter} -m venv --without-pip $out
      pip=$(echo ${run.wheels}/pip-*.whl)
      $out/bin/python "$pip/pip" install --quiet --no-index --no-compile \
        --disable-pip-version-check ${findLinks packages} ${builtins.concatStringsSep " " packages}
      $out/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash $out/lib
    '';
in
{
  withPackages =
    choose:
    environment "python3-env" (
      choose (lib.genAttrs (run.names ++ dev.names ++ bench.names) (name: name))
    );

  # A program of one package, without its Python, which could shadow another one on PATH.
  program =
    name: program:
    runCommand name { } ''
      mkdir -p $out/bin
      ln -s ${environment "${name}-env" [ name ]}/bin/${program} $out/bin/
    '';
}
