#!/usr/bin/env bash
# Checks that all C++ files are formatted (clang-format 14, as .clang-format says), that the scripts
# pass shellcheck, where these tools are installed (scripts/install_deps.sh --dev).
# usage: scripts/check_format.sh [--fix]
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

mode=(--dry-run -Werror)
case ${1:-} in
  --fix) mode=(-i) ;;
  '') ;;
  *) die "unknown option $1 (known: --fix)" ;;
esac

say "Checking the format"
formatter=$(command -v clang-format-14 || command -v clang-format || true)
if [ -n "$formatter" ] && "$formatter" --version | grep -q 'version 14\.'; then
  find src tests fuzz bench \( -name '*.h' -o -name '*.cc' \) -print0 |
    xargs -0 --no-run-if-empty "$formatter" "${mode[@]}"
else
  echo "skipped: no clang-format 14" >&2
fi
if command -v shellcheck >/dev/null; then
  shellcheck -x scripts/*.sh .ci/run
else
  echo "skipped: no shellcheck" >&2
fi
