#!/usr/bin/env bash
# The whole thing on a fresh Debian 12: installs, builds, gets a small real model, fits nests to it,
# measures what budgets cost on text that the fit has not seen, and lets the model answer the same prompt
# at each budget.
# usage: scripts/demo.sh [MODEL]    (default: SmolLM2-135M-Instruct, see scripts/get_model.sh)
# What it makes stays in build/demo: the nests, the texts, the figures (*.json, table.txt, answers.txt).
set -euo pipefail
case ${1:-} in
  -h | --help) sed -n '2,6s/^# //p' "$0" && exit ;;
esac
if [ $# -gt 0 ]; then model=$(realpath "$1"); fi
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Shares of the 16-bit cache, for the coded tokens: the paper's latent columns, then nested 4-bit codes
# (25 % is 4 bits a value, 6.25 % is 1).
column_budgets=(100% 87.5% 75% 62.5% 50% 37.5% 25%)
code_budgets=(25% 12.5% 6.25%)
demo=build/demo
matryoshka=build/release/bin/matryoshka

scripts/build.sh >/dev/null
model=${model:-$(scripts/get_model.sh)}
mkdir -p "$demo"
scripts/demo_text.sh "$demo"
started=$SECONDS

say "The model"
"$matryoshka" inspect "$model"

# Without --text the model would write its own, which takes longer.
say "Fitting nests to $demo/fit.txt: columns, then codes"
"$matryoshka" fit "$model" --kind column -o "$demo/columns" --text "$demo/fit.txt" --tokens 8192 \
  >"$demo/columns.txt"
"$matryoshka" fit "$model" --kind code -o "$demo/codes" --text "$demo/fit.txt" --tokens 8192 \
  >"$demo/codes.txt"

say "What budgets cost: $demo/measure.txt, 3 windows of 1024 tokens, second halves scored"
measure() { # NEST BUDGET...
  "$matryoshka" eval kl "$model" --nest "$demo/$1" --budgets "$(IFS=, && echo "${*:2}")" \
    --text "$demo/measure.txt" --context 1024 --windows 3 --json >"$demo/$1.json"
}
measure columns "${column_budgets[@]}"
measure codes "${code_budgets[@]}"
python3 - "$demo/columns.json" "$demo/codes.json" <<'PYTHON' | tee "$demo/table.txt"
import json
import sys

header = "  budget   KV bytes/token   of 16 bits   bits/value      KL   perplexity   change"
for path, title in zip(sys.argv[1:], ("16-bit latent columns", "nested 4-bit codes")):
    with open(path, encoding="utf-8") as file:
        rows = json.load(file)
    exact_bytes = rows[0]["kv_bytes_per_token"] * 16 / rows[0]["bits_per_value"]
    print(f"{title}\n{header}")
    print(f"   exact   {exact_bytes:14.0f}      100.0 %        16.00  0.0000   {rows[0]['perplexity_base']:10.3f}")
    for row in rows:
        size = row["kv_bytes_per_token"]
        change = 100 * (row["perplexity"] / row["perplexity_base"] - 1)
        print(f"{row['budget']:>8}   {size:14.0f}   {100 * size / exact_bytes:8.1f} %   "
              f"{row['bits_per_value']:10.2f}  {row['kl']:6.4f}   {row['perplexity']:10.3f}  {change:+6.2f} %")
    print()
print("Bytes are counted at the end of a window, with everything: codes, scales, exact tokens, padding.")
PYTHON

# Long enough that the question's view of the text is coded, not exact.
say "The same prompt at each budget"
excerpt=$(awk '{ size += length($0) + 1; if (size > 3500) exit; printf "%s ", $0 }' "$demo/measure.txt")
question="Here is the beginning of a text. $excerpt ... In two sentences: what is Debian?"
: >"$demo/answers.txt"
answer() {
  {
    printf '%-12s ' "$1:"
    printf '%s\n' "$question" |
      "$matryoshka" chat "$model" -n 60 --temperature 0 "${@:2}" 2>>"$demo/answers.log" | tr '\n' ' '
    printf '\n\n'
  } | tee -a "$demo/answers.txt"
}
answer exact
for budget in "${column_budgets[@]}"; do
  answer "$budget" --nest "$demo/columns" --budget "$budget"
done
for budget in "${code_budgets[@]}"; do
  answer "codes $budget" --nest "$demo/codes" --budget "$budget"
done
say "Done in $((SECONDS - started)) s after the build; everything is in $demo"
