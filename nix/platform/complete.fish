# Completion of `platform` in fish; complete.sh is that of bash.
complete -c platform --wraps process-compose
complete -c platform -n __fish_use_subcommand -f -a 'reset status'
complete -c platform -n '__fish_seen_subcommand_from process run' -f -a '(
    sed -n "/^processes:/,\$s/^  \([a-z][a-z0-9-]*\):.*/\1/p" $PC_CONFIG_FILES)'
