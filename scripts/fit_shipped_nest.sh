#!/usr/bin/env bash
# Makes the nest that ships for the demo's model again: fits it, trains it (LibTorch) and measures it along its ladder.
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
[ -x build/train/bin/matryoshka ] || die "no build/train/bin/matryoshka: scripts/install_deps.sh --train && cmake --preset train && cmake --build --preset train"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
build/release/bin/matryoshka fit "$model" -o "$work/fitted" --text "${texts[@]}" --tokens 131072 --window 1024
# Debian's OpenBLAS has no kernels for many processors of its own.
OPENBLAS_CORETYPE=${OPENBLAS_CORETYPE:-SkylakeX} OPENBLAS_NUM_THREADS=1 build/train/bin/matryoshka train "$model" \
  --nest "$work/fitted" -o "$nest" --text "${texts[@]}" --tokens 131072 --window 1024 --windows-per-step 4 --held-out 4 \
  --budgets 4bits,3bits,2bits,1.5bits,1bits --steps-per-measurement 8 --schedule automatic --floor 0.1 --warmup-steps 4 \
  --last-rate 0.02 --learning-rate 7e-3 --basis-rate 0.1 \
  --measure "$data/lm_eval/wikitext2.valid.raw" --measure-windows 4 --measure-rungs 20
