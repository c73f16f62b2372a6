# shellcheck shell=bash
# Reduces the environment of the platform's programs to the names below, so that they run the same in
# every shell. Sourced first by `platform`, `process-compose` (and so for all
# processes of the stack) and the other commands. docs/configuration.md explains it.

# First the functions that the caller exported: one may be named like a command below. In POSIX mode none
# overrides `unset`.
POSIXLY_CORRECT=yes
unset -f declare
for platform_name in $(declare -Fx); do
  case $platform_name in declare | -*) ;; *) unset -f "$platform_name" ;; esac
done
unset POSIXLY_CORRECT

# As in nixw: no stream is closed.
(: 9<&0) 2>/dev/null || exec </dev/null
(: 9>&1) 2>/dev/null || exec >/dev/null
(: 9>&2) || exec 2>/dev/null

# The current folder may have been deleted, as by switching branches, and even made again.
cd "${PWD-}" 2>/dev/null || cd "${PLATFORM_CHECKOUT:-/}" || exit

# The settings. Not from .env.example, which users move to .env.
platform_kept=$(<"${PLATFORM_CODE:-.}/devtools/inherited.txt") || exit
platform_kept+="
  PLATFORM_CHECKOUT PLATFORM_CODE PLATFORM_DROPPED
  OTEL_RESOURCE_ATTRIBUTES
  PC_CONFIG_FILES PC_DISABLE_TUI PC_LOG_FILE PC_SOCKET_PATH PROC_COMP_CONFIG
  PATH PWD HOME USER LOGNAME LD_LIBRARY_PATH LD_PRELOAD LOCALE_ARCHIVE
  TERM TERMINFO TERMINFO_DIRS COLORTERM COLUMNS LINES NO_COLOR FORCE_COLOR EDITOR
  DISPLAY WAYLAND_DISPLAY XAUTHORITY XDG_RUNTIME_DIR
  SSL_CERT_DIR SSL_CERT_FILE NIX_SSL_CERT_FILE
  http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY
"
platform_kept=" ${platform_kept//[[:space:]]/ } "

# Not `compgen -e`, which nixpkgs' bash lacks.
for platform_name in $(declare -xp | sed -nE 's/^declare -[a-zA-Z]+ ([A-Za-z_][A-Za-z0-9_]*).*/\1/p'); do
  case $platform_kept in *" $platform_name "*) continue ;; esac
  # Only names, which preflight and doctor check for misspelt settings.
  PLATFORM_DROPPED="${PLATFORM_DROPPED-} $platform_name"
  case $platform_name in
    # Unset, it would close the descriptor that it names.
    BASH_XTRACEFD) export -n BASH_XTRACEFD ;;
    # Some of bash's own variables cannot be unset.
    *) unset "$platform_name" 2>/dev/null || export -n "${platform_name?}" ;;
  esac
done

# The screen (TUI) needs a terminal at both ends, and a cursor (Emacs' shell has none).
case ${TERM-} in "" | dumb) export PC_DISABLE_TUI=1 ;; esac
if ! { [ -t 0 ] && [ -t 1 ]; }; then
  export PC_DISABLE_TUI=1
fi
export PLATFORM_DROPPED="${PLATFORM_DROPPED-}"
# UTC logs, files with mode 600, no packages from the user's home, no modules from the current folder.
export TZ=UTC LANG=C.UTF-8 PYTHONPATH=${PLATFORM_CODE:-.} PYTHONNOUSERSITE=1 PYTHONSAFEPATH=1
umask 077
