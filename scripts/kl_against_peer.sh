#!/usr/bin/env bash
# KL divergence from the exact cache on the same windows: llama.cpp's own tool with f16, q8_0 and q4_0 keys and values, then a nest.
# Both score the second half of each window. The peer's logits go to /tmp: half of the windows' tokens * vocabulary * 2 bytes.
# usage: scripts/kl_against_peer.sh PEER_BIN MODEL NEST BUDGETS TEXT CONTEXT WINDOWS    (BUDGETS: e.g. 2bits,1.7bits)
set -euo pipefail
[ $# -eq 7 ] || { sed -n '2,4s/^# //p' "$0" >&2 && exit 2; }
peer=$(realpath "$1") model=$(realpath "$2") nest=$(realpath "$3") budgets=$4 text=$(realpath "$5") context=$6 windows=$7
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

logits=$(mktemp)
trap 'rm -f "$logits"' EXIT
perplexity() {
  "$peer/llama-perplexity" -m "$model" -f "$text" -c "$context" -b "$context" --chunks "$windows" -t "$(nproc)" -fa on \
    --kl-divergence-base "$logits" "$@" 2>/dev/null
}
echo "$(basename "$text"), context $context, $windows windows"
perplexity >/dev/null
for type in f16 q8_0 q4_0; do
  perplexity --kl-divergence -ctk "$type" -ctv "$type" |
    sed -n "s/^Mean *KLD: */llama.cpp $type: KL /p;s/^Mean PPL(Q)\/PPL(base) *: */llama.cpp $type: perplexity x /p"
done
build/release/bin/matryoshka eval kl "$model" --nest "$nest" --budgets "$budgets" --text "$text" --context "$context" --windows "$windows"
