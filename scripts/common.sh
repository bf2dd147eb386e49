# Shared by the scripts here; sourced, not run. Sets `root` (the checkout), changes into it, and gives
# say (a heading on stderr), die (an error and exit 1) and quietly (output only if the command fails).
# shellcheck shell=bash
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit

say() { printf '\n== %s\n' "$*" >&2; }

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

quietly() {
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 </dev/null || status=$?
  if [ "$status" -ne 0 ]; then
    cat "$log" >&2
    printf '%s: failed with %d: %s\n' "$(basename "$0")" "$status" "$*" >&2
  fi
  rm -f "$log"
  return "$status"
}
