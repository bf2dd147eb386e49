#!/usr/bin/env bash
# Runs the tests of what reads outside bytes (files, text, nests) under the address and
# undefined-behaviour sanitizers. Only their programs are built.
# usage: scripts/test_parsers.sh [FOLDER...]    folders of tests/; default: base store text nest
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

say "Parsers under sanitizers"
programs=()
folders=("$@")
[ $# -gt 0 ] || folders=(base store text nest)
for name in "${folders[@]}"; do
  if compgen -G "tests/$name/*_test.cc" >/dev/null; then programs+=("test_$name"); fi
done
[ "${#programs[@]}" -gt 0 ] || die "no test found"
scripts/install_deps.sh
quietly cmake --preset asan
quietly cmake --build --preset asan --target "${programs[@]}"
export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1
ctest --preset asan -j "$(nproc)" -L "^($(IFS='|' && echo "${folders[*]}"))\$" </dev/null
