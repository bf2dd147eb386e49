#!/usr/bin/env bash
# Installs what is needed, builds everything and runs the tests.
# usage: scripts/test.sh [CTEST-OPTION...]     e.g. scripts/test.sh -L nest
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

scripts/install_deps.sh
say "Building"
quietly cmake --preset release
quietly cmake --build --preset release
say "Testing"
ctest --preset release -j "$(nproc)" "$@" </dev/null
