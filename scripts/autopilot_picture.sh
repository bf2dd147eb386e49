#!/usr/bin/env bash
# Flies the autopilot over two texts, and makes docs/autopilot.png of its trace (needs Debian's chromium).
# usage: scripts/autopilot_picture.sh TEXT TEXT [PAGE]    (default PAGE: build/pilot/autopilot.html; one that is there is not made again)
set -euo pipefail
case ${1:-} in
  '' | -h | --help) sed -n '2,3s/^# //p' "$0" && exit ;;
esac
first=$(realpath "$1") second=$(realpath "$2")
page=${3:+$(realpath -m "$3")}
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
page=${page:-$root/build/pilot/autopilot.html}

if [ ! -f "$page" ]; then
  mkdir -p "$(dirname "$page")"
  build/release/bin/matryoshka autopilot "$(scripts/get_model.sh)" --nest nests/SmolLM2-135M-Instruct \
    --stream "$first" "$second" --max-kl 0.01 --requests 100 -o "$page"
fi
say "Making docs/autopilot.png of $page"
tests/tools/page_picture.py "$page" docs/autopilot.png trace
