# shellcheck shell=bash
# Completion of `platform` and `process-compose`: process-compose's own, with the commands of `platform` and
# the names of processes.

eval "$(process-compose completion bash 2>/dev/null)"

_platform_complete() {
  local names='' typed=${COMP_WORDS[*]:1:COMP_CWORD-1}
  case "${COMP_WORDS[0]##*/} $typed" in
    "platform ") names="reset status" ;;
    "platform reset") names=--yes ;;
    *" run" | *" process "*) names=$(sed -n '/^processes:/,$s/^  \([a-z][a-z0-9-]*\):.*/\1/p' "$PC_CONFIG_FILES") ;;
  esac
  COMPREPLY=()
  case $typed in run | reset | "process "?*) ;; *) __start_process-compose ;; esac
  local cur=${COMP_WORDS[COMP_CWORD]} name
  for name in $names; do
    case $name in "$cur"*) COMPREPLY+=("$name") ;; esac
  done
}

complete -o default -F _platform_complete platform process-compose
