#!/usr/bin/env bash
# Cross-compiles for ARM (aarch64) and runs tests of the chosen folders in QEMU: kernels through Highway's NEON.
# Needs g++-aarch64-linux-gnu and qemu-user-static, and arm64 among apt's architectures
# (dpkg --add-architecture arm64 && apt-get update); libraries are unpacked into FOLDER, not installed.
# usage: scripts/check_arm.sh FOLDER [TESTS-FOLDER...]    (default: ops nest)
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,5s/^# //p' "$0" >&2 && exit 2; }
target=$(realpath -m "$1")
shift
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tests=("$@")
[ $# -gt 0 ] || tests=(ops nest)
for tool in aarch64-linux-gnu-g++ qemu-aarch64-static; do
  command -v "$tool" >/dev/null || die "needs $tool"
done
sysroot=$target/sysroot
libraries=$sysroot/usr/lib/aarch64-linux-gnu
packages=()
for name in libhwy-dev libhwy1 libdnnl-dev libdnnl2 ocl-icd-opencl-dev ocl-icd-libopencl1 libpcre2-dev libpcre2-8-0 libutf8proc-dev \
  libutf8proc2 libssl-dev libssl3 libgtest-dev libgmock-dev; do packages+=("$name:arm64"); done
packages+=(opencl-c-headers nlohmann-json3-dev libcli11-dev libeigen3-dev)

if [ ! -d "$sysroot" ]; then
  say "Libraries for ARM in $sysroot"
  mkdir -p "$target/packages"
  (cd "$target/packages" && quietly apt-get download "${packages[@]}")
  for package in "$target"/packages/*.deb; do dpkg -x "$package" "$sysroot"; done
fi
say "Building"
export PKG_CONFIG_SYSROOT_DIR=$sysroot PKG_CONFIG_LIBDIR=$libraries/pkgconfig:$sysroot/usr/share/pkgconfig
quietly cmake -S . -B "$target/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DMKV_BUILD_BENCH=OFF \
  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
  -DCMAKE_LIBRARY_ARCHITECTURE=aarch64-linux-gnu -DCMAKE_FIND_ROOT_PATH="$sysroot" \
  -DCMAKE_FIND_ROOT_PATH_MODE_PACKAGE=ONLY -DCMAKE_FIND_ROOT_PATH_MODE_LIBRARY=ONLY -DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY \
  -DCMAKE_CXX_FLAGS="-isystem $sysroot/usr/include/aarch64-linux-gnu" \
  -DCMAKE_EXE_LINKER_FLAGS="-Wl,-rpath-link,$libraries" \
  -DCMAKE_CROSSCOMPILING_EMULATOR="qemu-aarch64-static;-L;/usr/aarch64-linux-gnu;-E;LD_LIBRARY_PATH=$libraries"
quietly cmake --build "$target/build" --target "${tests[@]/#/test_}"
say "Testing"
ctest --test-dir "$target/build" -j "$(nproc)" -L "^($(IFS='|' && echo "${tests[*]}"))\$" --output-on-failure </dev/null
