# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154 # nixw uses and sets them
# Sourced by nixw: chooses the flake reference.

# Whether git reads the checkout. It refuses another user's, as root in a container may have.
is_repository() {
  [ -e "$root/.git" ] && ! git -C "$root" rev-parse 2>&1 | grep -qF safe.directory
}

# Sets `flake` to the reference for Nix: the checkout, from which Nix takes what git tracks, or a copy of the
# project's own files. A folder without git would be copied whole into the store, secrets included,
# and Nix 2.8 cannot take paths with a space or worktrees of a shallow clone.
name_flake() {
  flake=.
  if ! is_repository; then
    copy_sources
  elif [ "$source" = host ]; then
    case $root in
      *[!A-Za-z0-9/._~+-]*) copy_sources ;;
      *)
        [ ! -f "$root/.git" ] || [ "$(git -C "$root" rev-parse --is-shallow-repository)" = false ] ||
          flake="git+file://$root?shallow=1"
        ;;
    esac
  fi
}

# say_untracked FOLDER…: names their untracked files, which Nix would only report as missing.
say_untracked() {
  is_repository || return 0
  files=$(cd "$root" && git ls-files --others --exclude-standard -- "$@" 2>/dev/null | head -n 5 | tr '\n' ' ')
  [ -z "$files" ] || say "Nix does not see files that git does not track: git add $files"
}

# The files that the flake reads; nix/package.nix lists them.
project_files() {
  if is_repository; then
    git -C "$root" ls-files -z --cached
  else
    cd "$root" || return
    sed -n 's|^ *\.\./\([^ ]*\).*|\1|p' nix/package.nix | sort -u |
      xargs sh -c 'find "$@" -type f ! -name .env ! -name jwt-secret ! -path "*/__pycache__/*" -print0' _
  fi
}

# The copy's folder is named by its content, so that no other nixw changes it while Nix reads it; older
# copies are removed.
copy_sources() {
  mkdir -p "$handed/source"
  archive=$handed/source/tar.$$
  project_files | tar -C "$root" -c --null -T - >"$archive" 2>/dev/null || : # tracked, but deleted
  copy=$handed/source/$(cksum <"$archive" | tr ' ' -)
  [ -d "$copy" ] || {
    mkdir "$copy.$$"
    tar -x -C "$copy.$$" -f "$archive"
    mv "$copy.$$" "$copy"
  }
  rm "$archive"
  touch "$copy"
  find "$handed/source" -mindepth 1 -maxdepth 1 -mmin +60 -exec rm -rf {} +
  flake=path:$copy
}

# Whether the stack and the shell need no downloads: no derivation still to be built has a fixed output,
# which is how Nix downloads.
pin_is_in_store() {
  source=offline
  name_flake
  planned=$(with_nix call build --dry-run "$flake#default" "$flake#devShells.$system.default" 2>&1) || return 1
  to_build=$(printf '%s\n' "$planned" | sed -n 's|^ *\(/nix/store/.*\.drv\)$|\1|p')
  # shellcheck disable=SC2086 # words
  [ -z "$to_build" ] || ! with_nix call derivation show $to_build | grep -q '"outputHash"'
}
