#!/bin/sh
# Builds and loads the images and creates the secrets of compose.yaml; see --help.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
images=$(sed -n 's|.*image: platform/\(.*\):latest|\1|p' deploy/compose.yaml | tr '\n' ' ')
for name in "$@"; do
  case " $images " in
    *" $name "*) ;;
    *)
      echo "usage: deploy/prepare.sh [IMAGE...]
Makes what deploy/compose.yaml starts from: secrets in .state/compose, and images in the container engine
(docker; DOCKER=podman names another). Images: all, or some of $images."
      case $name in -h | --help) exit 0 ;; *) exit 2 ;; esac
      ;;
  esac
done
# shellcheck disable=SC2086 # words
[ "$#" -gt 0 ] || set -- $images

# A container reads secrets under another uid, so the files are world-readable, in a folder that only this
# user can enter.
folder=.state/compose
mkdir -p "$folder"
chmod 700 .state "$folder"
make_secret() {
  [ -s "$folder/$1" ] && return
  cat >"$folder/$1.new"
  chmod 444 "$folder/$1.new"
  mv "$folder/$1.new" "$folder/$1"
}
random() { head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }
random | make_secret jwt-secret
# Empty, because a secret's file must exist.
: | make_secret jwt-secret-previous
random | make_secret sandbox-token
echo "redis://platform:$(random)@redis:8005/0" | make_secret redis-url
# Without the password only the health check is allowed. The default user is off, and keeps its permissions:
# without them, Redis drops what scripts have written when it loads its append-only file (redis issue 14541).
rm -f "$folder/redis.conf" # of an earlier version
make_secret redis.conf <<END
user default off nopass ~* &* +@all
user health on nopass resetkeys resetchannels -@all +ping
user platform on >$(sed 's/.*platform://; s/@.*//' "$folder/redis-url") ~* &* +@all
END
echo sk_test_sandbox | make_secret psp-api-key

for name in "$@"; do
  ./nixw build --out-link "$folder/image-$name" ".#image-$name" || {
    echo "prepare: no image of $name. Images are made on Linux, from nixpkgs: see docs/images.md" >&2
    exit 1
  }
  # The build result is a program that writes the image.
  "$folder/image-$name" | "${DOCKER:-docker}" load
done
