#!/usr/bin/env bash
# Pilots the demo's model and the nest that ships, and makes docs/pilot.png of the page's upper half (needs Debian's chromium).
# usage: scripts/pilot_picture.sh TEXT [PAGE]    (default PAGE: build/pilot/pilot.html; one that is there is not made again)
#   TEXT is what the pilot measures on, e.g. wikitext2.valid.raw
set -euo pipefail
case ${1:-} in
  '' | -h | --help) sed -n '2,4s/^# //p' "$0" && exit ;;
esac
text=$(realpath "$1")
page=${2:+$(realpath -m "$2")}
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
page=${page:-$root/build/pilot/pilot.html}

if [ ! -f "$page" ]; then
  mkdir -p "$(dirname "$page")"
  build/release/bin/matryoshka pilot "$(scripts/get_model.sh)" --nest nests/SmolLM2-135M-Instruct --text "$text" \
    --max-ppl-increase 1% -o "$page"
fi
say "Making docs/pilot.png of $page"
tests/tools/page_picture.py "$page" docs/pilot.png cost  # without the answers and the notes
