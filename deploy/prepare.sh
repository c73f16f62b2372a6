#!/bin/sh
# Gets compose.yaml what it starts from: the images in the container engine (`DOCKER=podman` names
# another one than docker) and, in .state/compose, this stack's secrets. Words are names of images,
# when not all of them are wanted.
set -eu
cd "$(dirname "$0")/.."
[ "$#" -gt 0 ] || set -- redis auth-api core-api psp-sandbox psp-connector router

# A container reads a secret as a user of its own, so the files are for all to read, in a folder that
# nobody but this user can enter.
folder=.state/compose
mkdir -p "$folder"
chmod 700 .state "$folder"
make_secret() {
  [ -s "$folder/$1" ] && return
  cat >"$folder/$1.new"
  chmod 444 "$folder/$1.new"
  mv "$folder/$1.new" "$folder/$1"
}
head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' | make_secret jwt-secret
echo sk_test_sandbox | make_secret psp-api-key

for name in "$@"; do
  ./nixw build --out-link "$folder/image-$name" ".#image-$name" || {
    echo "prepare: no image of $name. Images are made on Linux, from nixpkgs: see docs/images.md" >&2
    exit 1
  }
  # What is built is a program that writes the image.
  "$folder/image-$name" | "${DOCKER:-docker}" load
done
