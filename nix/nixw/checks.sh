# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154 # nixw sets and uses them
# `nixw test [CHECK…]` and `nixw flake check`, sourced by nixw: runs the checks, shows their logs, and ends
# with the totals, `N passed, N failed[, N skipped]`. If CI is set, all checks run again; otherwise Nix
# skips and reports those with unchanged inputs.

# One line for each check: name, derivation, output.
list_checks() {
  # shellcheck disable=SC2016,SC2086 # Nix's own variables; words
  with_nix call eval --raw $override "$flake#checks.$system" --apply \
    'c: builtins.concatStringsSep "" (map (n: "${n} ${c.${n}.drvPath} ${c.${n}.outPath}\n") (builtins.attrNames c))'
}

# counts_of DERIVATION OUTPUT: from a check's output or, if it failed, from its log.
counts_of() {
  if [ -e "$2" ]; then cat "$2"; else with_nix call log "$1" 2>/dev/null; fi |
    grep -E '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$' | tail -n 1
}

# tally EXIT_CODE_OF_NIX: a failure that no check counted, such as of a build, counts as one.
tally() {
  while read -r name derivation output; do
    counts=$(counts_of "$derivation" "$output" || true)
    case " $cached " in *" $name "*) counts="$counts (of an earlier run: nothing has changed since)" ;; esac
    echo "$name: ${counts:-0 passed, 1 failed}"
  done <"$checks" | awk -v code="$1" '
    { print; passed += $2; failed += $4; skipped += $6 }
    END {
      if (code && !failed) { print "nixw: nix failed outside the tests: see above"; failed = 1 }
      print passed + 0 " passed, " failed + 0 " failed" (skipped ? ", " skipped " skipped" : "")
    }'
}

shift
names=''
while case ${1--} in -*) false ;; esac do
  [ "$1" = . ] || names="$names $1"
  shift
done

lock checks "running checks, which would disturb each other"
checks=$state/checks
if [ -z "$names" ]; then
  list_checks >"$checks" 2>/dev/null || : >"$checks" # nix flake check says why
else
  list_checks >"$checks.all"
  : >"$checks"
  for name in $names; do
    grep "^$name " "$checks.all" >>"$checks" ||
      die "there is no check $name; there are: $(cut -d ' ' -f 1 "$checks.all" | tr '\n' ' ')"
  done
fi
cached=''
while read -r name derivation output; do
  [ -e "$output" ] || continue
  if [ -n "${CI:-}" ]; then
    with_nix call store delete "$output" >&2 || die "cannot run the check $name again: see above"
  else
    cached="$cached $name"
  fi
done <"$checks"

case " $* " in *" -L "* | *" --print-build-logs "*) ;; *) set -- -L "$@" ;; esac
if [ -z "$names" ]; then
  set -- flake check "$flake" --keep-going "$@"
else
  for name in $names; do set -- "$@" "$flake#checks.$system.$name"; done
  # Its evaluation cache would be locked during the checks; Nix in another terminal would print an error.
  set -- build --no-link --keep-going --option eval-cache false "$@"
fi
jobs=1 # parallel checks would disturb tests that measure time
code=0
# shellcheck disable=SC2086 # words
with_nix call "$@" $override || code=$?
tally "$code"
exit "$code"
