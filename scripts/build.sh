#!/usr/bin/env bash
# Installs what is needed and leaves build/release/bin/matryoshka.
# usage: scripts/build.sh
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

scripts/install_deps.sh
say "Building build/release/bin/matryoshka"
quietly cmake --preset release
quietly cmake --build --preset release --target matryoshka
echo build/release/bin/matryoshka
