#!/usr/bin/env bash
# The demo's texts: running prose of two books that Debian ships as packages, the Developer's Reference to
# fit a nest to and the Debian FAQ to measure it on. Paragraphs on one line each, with a blank line between;
# headings, contents, lists of names and code are left out. The packages are unpacked, not installed.
# usage: scripts/demo_text.sh FOLDER    makes FOLDER/fit.txt and FOLDER/measure.txt
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,5s/^# //p' "$0" >&2 && exit 2; }
folder=$(realpath -m "$1")
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ ! -s "$folder/fit.txt" ] || [ ! -s "$folder/measure.txt" ] || exit 0

say "Getting texts from the packages developers-reference and debian-faq"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
download() { (cd "$work" && apt-get -o APT::Sandbox::User=root download developers-reference debian-faq); }
if ! download >/dev/null 2>&1; then # a fresh system may have no package lists yet
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  quietly "${as_root[@]}" apt-get update
  quietly download
fi
for package in "$work"/*.deb; do dpkg-deb --extract "$package" "$work/root"; done

# prose FILE.gz: a paragraph counts when its lines are long on average and it ends as a sentence does.
prose() {
  zcat "$1" | sed 's/\xc2\xa0/ /g' |
    awk '
      BEGIN { RS = ""; FS = "\n" }
      {
        paragraph = ""
        for (i = 1; i <= NF; ++i) {
          line = $i
          gsub(/[ \t\r]+/, " ", line)
          sub(/^ /, "", line); sub(/ $/, "", line)
          paragraph = paragraph (paragraph == "" ? "" : " ") line
        }
        sub(/^[*+-] /, "", paragraph)
        if (paragraph ~ /^Permission is granted|GNU General Public License/) next
        if (NF >= 2 && length(paragraph) >= 45 * NF && paragraph ~ /[.:?!)]$/) print paragraph "\n"
      }'
}
prose "$work/root/usr/share/developers-reference/developers-reference.txt.gz" >"$work/fit.txt"
prose "$work/root/usr/share/doc/debian/FAQ/debian-faq.en.txt.gz" >"$work/measure.txt"
for name in fit measure; do
  [ "$(wc -c <"$work/$name.txt")" -gt 80000 ] || die "$name.txt: the package's text is not what was expected"
done
mkdir -p "$folder"
mv "$work/fit.txt" "$work/measure.txt" "$folder/"
