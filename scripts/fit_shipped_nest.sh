#!/usr/bin/env bash
# Makes the nest that ships for the demo's model again, and measures it along its ladder.
# usage: scripts/fit_shipped_nest.sh DATA [NEST]   (default nests/SmolLM2-135M-Instruct)
#   DATA/train/*.jsonl is what it is fitted to, DATA/lm_eval/wikitext2.valid.raw what it is measured on
set -euo pipefail
case ${1:-} in
  '' | -h | --help) sed -n '2,4s/^# //p' "$0" && exit ;;
esac
data=$(cd "$1" && pwd)
nest=${2:+$(realpath -m "$2")}
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
nest=${nest:-$root/nests/SmolLM2-135M-Instruct}

texts=()
for name in wikipedia c4_redpajama fineweb_edu openstax books_gutenberg stackexchange_redpajama; do
  texts+=("$data/train/$name.jsonl")
done
model=$(scripts/get_model.sh)
build/release/bin/matryoshka fit "$model" -o "$nest" --text "${texts[@]}" --tokens 131072 --window 1024 \
  --measure "$data/lm_eval/wikitext2.valid.raw" --measure-windows 4 --measure-rungs 20
