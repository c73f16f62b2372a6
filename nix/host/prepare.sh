# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154 # nixw uses and sets them
# Sourced by nixw if no binary cache responds: installs the machine's programs that the host package set
# uses, records facts about the machine, and builds what the command needs.

# Nix 2.8 cannot read paths with a space, so its inputs are copied to paths without.
handed=/nix/var/nixw/${handed##*/}
builder_environment=/nix/var/nixw/environment
said_minutes=1440

# What a command needs built: the stack (`run`), the development shell, or nothing.
need_of() {
  case $* in
    run | "run . "* | run\ .) echo run ;;
    "run ."* | build*) case $* in *bench* | *checks* | *devShells* | *formatter*) echo shell ;; *) echo run ;; esac ;;
    develop* | shell* | print-dev-env* | test*) echo shell ;;
    *) echo nothing ;;
  esac
}

# Whether the command runs the check `browser`, alone or with all checks.
needs_browser() {
  case $* in test | "test -"* | "test ."* | *" browser"* | *"#checks."*".browser") return 0 ;; esac
  return 1
}

debian_packages_missing() {
  has nix || echo nix-bin
  [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -n "${SSL_CERT_FILE:-}" ] || echo ca-certificates
  [ -x /usr/bin/curl ] || echo curl
  [ -x /usr/bin/git ] || echo git
  [ -x /usr/bin/lnav ] || echo lnav
  [ -x /usr/bin/redis-check-rdb ] || echo redis-tools
  /usr/bin/python3 -I -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
  [ "$need" = shell ] || return 0
  [ -x /usr/bin/wrk ] || echo wrk
  [ -e /usr/share/bash-completion/bash_completion ] || echo bash-completion
  [ -z "$browser" ] || [ -x /usr/bin/chromedriver ] || echo chromium chromium-driver fonts-dejavu-core
}

# With another home, because go writes telemetry to it.
find_go() {
  for go in "$(command -v go || true)" /usr/local/go/bin/go /usr/lib/go-1.*/bin/go; do
    [ -x "$go" ] || continue
    # GOROOT may belong to another version; builders do not see it.
    minor=$(HOME=$state XDG_CONFIG_HOME=$state GOTOOLCHAIN=local GOROOT='' "$go" env GOVERSION | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    [ "${minor:-0}" -lt 26 ] || return 0
  done
  die "Go 1.26 or newer, needed to build the router, is missing. Unpack it from https://go.dev/dl/ to /usr/local/go."
}

# Builders have no environment, so they read the registries' settings from a file, on which no
# derivation depends. Mode 600, because a proxy's address may contain a password.
write_builder_environment() (
  mkdir -p "${builder_environment%/*}"
  umask 077
  {
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY \
      SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE GOPROXY GONOPROXY GOPRIVATE GOINSECURE GOSUMDB \
      GONOSUMDB GOFLAGS GOAUTH PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_NO_INDEX \
      PIP_TRUSTED_HOST PIP_CERT PIP_CLIENT_CERT PIP_PROXY PIP_DEFAULT_TIMEOUT PIP_RETRIES; do
      eval "value=\${$name-}"
      [ -z "$value" ] || export_line "$name" "$value"
    done
    export_line NIXW_GO "$go"
    export_line GOENV "${GOENV:-${XDG_CONFIG_HOME:-$HOME/.config}/go/env}"
    export_line NETRC "${NETRC:-$HOME/.netrc}"
    export_line PIP_CONFIG_FILE "${PIP_CONFIG_FILE:-${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf}"
  } >"$builder_environment.$$"
  mv "$builder_environment.$$" "$builder_environment"
)
export_line() { printf "export %s='%s'\n" "$1" "$(printf %s "$2" | sed "s/'/'\\\\''/g")"; }

# The path of the machine's process-compose, if the stack supports its version.
process_compose_of_machine() {
  path=$(command -v process-compose || true)
  case $path in '' | /nix/*) return ;; esac
  minor=$(PC_LOG_FILE=/dev/null "$path" version --short 2>/dev/null </dev/null | sed -n 's/^v\{0,1\}1\.\([0-9]*\)\..*/\1/p')
  [ "${minor:-0}" -lt 100 ] || [ "$minor" -gt 122 ] || readlink -f "$path"
}

# Copies nix/host and the facts of this machine to the folder that Nix reads.
hand_over() {
  printf '{"python": "%s"%s}\n' "$(readlink -f /usr/bin/python3)" \
    "${process_compose:+, \"processCompose\": \"$process_compose\"}" | remember machine.json
  mkdir -p "$handed/host"
  diff -qr -x machine.json "$root/nix/host" "$handed/host" >/dev/null || {
    rm -rf "$handed/host"
    cp -R "$root/nix/host" "$handed/host"
  }
  cmp -s "$state/machine.json" "$handed/host/machine.json" || cp "$state/machine.json" "$handed/host/"
}

# The version in the pinned nixpkgs; `doctor` and packages.nix read the same list.
pinned() { sed -n "s/.*\"$1\": \"\(.*\)\".*/\1/p" "$root/nix/host/pinned.json"; }

process_compose_version() {
  if [ -n "$process_compose" ]; then
    PC_LOG_FILE=/dev/null "$process_compose" version --short </dev/null | tr -d v
  else
    sed -n 's|.*/process-compose v\([0-9.]*\).*|\1|p' "$root/nix/host/go/process-compose/go.mod"
  fi
}

differences_from_pin() {
  {
    echo "python|$(/usr/bin/python3 -I -c 'import platform; print(platform.python_version())')|$(pinned python)"
    echo "redis|$(/usr/bin/redis-cli --version | cut -d ' ' -f 2)|$(pinned redis)"
    echo "process-compose|$(process_compose_version)|$(pinned process-compose)"
  } | awk -F '|' '$2 != $3 { printf "%s %s (pinned: %s), ", $1, $2, $3 }'
  echo "no nixfmt"
}

# The build depends on these files, and on our code, which takes only a second.
key() {
  find "$root/nix" "$state/machine.json" -type f ! -path '*/__pycache__/*' -exec cksum {} + 2>/dev/null | sort | cksum
}

is_prepared() {
  remembered facts && { [ -z "$browser" ] || [ -x /usr/bin/chromedriver ]; } || return 1
  [ "$need" = nothing ] || { [ -e "$state/root-$need" ] && [ "$(cat "$state/key-$need" 2>/dev/null)" = "$(key)" ]; }
}

# Builds what the command needs, and protects it from Nix's garbage collector.
build_first() {
  # shellcheck disable=SC2086 # words
  case $need in
    run) set -- build --out-link "$state/root-run" "$flake#default" $override ;;
    shell) set -- develop --profile "$state/root-shell" "$flake" $override -c true ;;
    nothing) return ;;
  esac
  set -- --log-lines 16 "$@" # go's whole message about a refused module
  if [ -t 2 ]; then # Nix' progress bar
    ! with_nix call "$@" </dev/null >&2 || : >"$state/built"
  else # a line for each build, none about the overridden lock file
    { with_nix call -v -v -v "$@" && : >"$state/built"; } 2>&1 </dev/null |
      grep --line-buffered -vE 'not writing modified lock file|Updated input|nixpkgs/[0-9a-f]{40}|→ .path:' >&2 || :
  fi
  rm "$state/built" 2>/dev/null || die "the build failed: see above"
  [ "$need" = run ] || # older generations of the profile
    find "$state" -name 'root-shell-*-link' ! -name "$(readlink "$state/root-shell")" -exec rm {} +
  key | remember "key-$need"
}

# Once a day, or when it changed.
say_differences() {
  text="no binary cache responds, so the host package set is used. Not as pinned: $(differences_from_pin)."
  if ! remembered said "$said_minutes" || [ "$(cat "$state/said")" != "$text" ]; then
    say "$text"
    echo "$text" | remember said
  fi
}

for folder in /nix/store /nix/var/nix; do # a daemon creates the store at its first use
  [ -w $folder ] || [ ! -e $folder ] || die "$folder belongs to another user or to a daemon, but" \
    "the host package set needs your own Nix: run nixw as root, or take over /nix with chown." \
    "With a daemon, once everything was built, plain nix instead of nixw works, too."
done
need=$(need_of "$@") browser=''
! needs_browser "$@" || browser=yes
is_prepared || {
  lock prepare "preparing the packages"
  missing=$(debian_packages_missing)
  # shellcheck disable=SC2086 # words
  [ -z "$missing" ] || apt_install $missing
  [ -w /nix ] || [ "$(id -u)" -eq 0 ] || as_root install -d -o "$(id -u)" -g "$(id -g)" /nix
  mkdir -p /nix/var/nix # without it, Nix 2.10 and newer use a store in the home folder
}
find_go
write_builder_environment
remembered facts || process_compose_of_machine | remember facts
process_compose=$(cat "$state/facts")
hand_over
override="--override-input nixpkgs path:$handed/host"
name_flake
is_prepared || {
  say_differences
  build_first
}
exec 9>&-
