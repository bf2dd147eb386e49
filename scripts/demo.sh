#!/usr/bin/env bash
# The whole thing on a fresh Debian 12: installs, builds, gets a small real model, fits a nest to it,
# measures what budgets cost on text that neither the model's fit nor its search has seen, and lets the
# model answer the same prompt at each budget.
# usage: scripts/demo.sh [MODEL]    (default: SmolLM2-135M-Instruct, see scripts/get_model.sh)
# What it makes stays in build/demo: the nest, the text, the figures (budgets.json, table.txt, answers.txt).
set -euo pipefail
case ${1:-} in
  -h | --help) sed -n '2,6s/^# //p' "$0" && exit ;;
esac
if [ $# -gt 0 ]; then model=$(realpath "$1"); fi
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Of the 16-bit cache, for the coded tokens: 5 (all), 4, 3, 2, 1.5 and 1 bits a value.
budgets=(max 25% 18.75% 12.5% 9.375% 6.25%)
demo=build/demo
matryoshka=build/release/bin/matryoshka

scripts/build.sh >/dev/null
model=${model:-$(scripts/get_model.sh)}
mkdir -p "$demo"
scripts/demo_text.sh "$demo/text.txt"
started=$SECONDS

say "The model"
"$matryoshka" inspect "$model"

say "Fitting a nest to text that the model writes itself"
"$matryoshka" fit "$model" -o "$demo/nest" --tokens 16384 >"$demo/fit.txt"

say "What budgets cost: $demo/text.txt, 6 windows of 1024 tokens, second halves scored"
"$matryoshka" eval kl "$model" --nest "$demo/nest" --budgets "$(IFS=, && echo "${budgets[*]}")" \
  --text "$demo/text.txt" --context 1024 --windows 6 --json >"$demo/budgets.json"
python3 - "$demo/budgets.json" <<'PYTHON' | tee "$demo/table.txt"
import json
import sys

rows = json.load(open(sys.argv[1], encoding="utf-8"))
exact_bytes = rows[0]["kv_bytes_per_token"] * 16 / rows[0]["bits_per_value"]
print("  budget   KV bytes/token   of 16 bits   bits/value      KL   perplexity   change")
print(f"   exact   {exact_bytes:14.0f}      100.0 %        16.00  0.0000   {rows[0]['perplexity_base']:10.3f}")
for row in rows:
    size = row["kv_bytes_per_token"]
    change = 100 * (row["perplexity"] / row["perplexity_base"] - 1)
    print(f"{row['budget']:>8}   {size:14.0f}   {100 * size / exact_bytes:8.1f} %   "
          f"{row['bits_per_value']:10.2f}  {row['kl']:6.4f}   {row['perplexity']:10.3f}  {change:+6.2f} %")
print("\nBytes are counted at the end of a window, with everything: codes, scales, exact tokens, padding.")
PYTHON

# Long enough that the question's view of the text is coded, not exact.
say "The same prompt at each budget"
excerpt=$(awk '{ size += length($0) + 1; if (size > 3500) exit; printf "%s ", $0 }' "$demo/text.txt")
question="Here is the beginning of a text. $excerpt ... In two sentences: what is Debian?"
: >"$demo/answers.txt"
answer() {
  {
    printf '%-7s ' "$1:"
    printf '%s\n' "$question" |
      "$matryoshka" chat "$model" -n 60 --temperature 0 "${@:2}" 2>>"$demo/answers.log" | tr '\n' ' '
    printf '\n\n'
  } | tee -a "$demo/answers.txt"
}
answer exact
for budget in "${budgets[@]}"; do
  answer "$budget" --nest "$demo/nest" --budget "$budget"
done
say "Done in $((SECONDS - started)) s after the build; everything is in $demo"
