#!/usr/bin/env bash
# Installs what ralu needs and this machine lacks: a linker, the Vulkan loader, and, where there is no GPU
# driver, Mesa's software one. Debian and Ubuntu; elsewhere it says what is missing. Changes nothing that is
# already there. On Windows and macOS nothing is needed: use the cargo commands alone.
set -euo pipefail

command -v cargo >/dev/null || {
  echo "setup: cargo is missing; get it from https://rustup.rs" >&2
  exit 1
}
[ "$(uname -s)" = Linux ] || exit 0

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
# ldconfig is not on every user's PATH. (Not piped into grep -q: that would end ldconfig early, a failure here.)
libraries=$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p)
[[ $libraries == *libvulkan.so.1* ]] || missing+=(libvulkan1)

has_driver() {
  [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] && return 0
  local folder
  for folder in /usr/share/vulkan/icd.d /etc/vulkan/icd.d /usr/local/share/vulkan/icd.d \
    "${XDG_DATA_HOME:-$HOME/.local/share}/vulkan/icd.d"; do
    compgen -G "$folder/*.json" >/dev/null && return 0
  done
  return 1
}
# Holds the drivers for AMD and Intel GPUs and the software one.
has_driver || missing+=(mesa-vulkan-drivers)

[ ${#missing[@]} -eq 0 ] || "$(dirname "${BASH_SOURCE[0]}")/install-packages" "${missing[@]}"
