#!/usr/bin/env bash
# The demo's measured text: the running prose of the Debian FAQ, as the Debian package debian-faq ships
# it. Paragraphs on one line each, with a blank line between; without contents, headings and lists of names.
# usage: scripts/demo_text.sh FILE
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,4s/^# //p' "$0" >&2 && exit 2; }
target=$(realpath -m "$1")
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ ! -s "$target" ] || exit 0

say "Getting the text to measure on: the Debian FAQ"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
# Unpacked, not installed. A fresh system may have no package lists yet.
download() { (cd "$work" && apt-get -o APT::Sandbox::User=root download debian-faq); }
if ! download >/dev/null 2>&1; then
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  quietly "${as_root[@]}" apt-get update
  quietly download
fi
dpkg-deb --extract "$work"/debian-faq_*.deb "$work/package"
mkdir -p "$(dirname "$target")"
zcat "$work/package/usr/share/doc/debian/FAQ/debian-faq.en.txt.gz" |
  sed 's/\xc2\xa0/ /g' | # no-break spaces
  awk '
    BEGIN { RS = ""; FS = "\n" }
    /^Chapter 1\./ { begun = 1 }  # before it: title and contents
    !begun { next }
    {
      paragraph = ""
      for (i = 1; i <= NF; ++i) {
        line = $i
        gsub(/[ \t\r]+/, " ", line)
        sub(/^ /, "", line); sub(/ $/, "", line)
        paragraph = paragraph (paragraph == "" ? "" : " ") line
      }
      sub(/^[*+-] /, "", paragraph)
      if (length(paragraph) >= 120 && paragraph ~ /[.:?!)]$/) print paragraph "\n"
    }' >"$work/text"
[ "$(wc -c <"$work/text")" -gt 50000 ] || die "debian-faq: its text is not what was expected"
mv "$work/text" "$target"
