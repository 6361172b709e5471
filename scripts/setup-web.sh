#!/usr/bin/env bash
# Installs what builds for the browser and this machine lacks: Rust's wasm target and the node packages of tests/browser
# (there, nowhere else); with --browser also Chromium, with --dawn the packages of tests/dawn. Debian and Ubuntu; elsewhere it
# says what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "setup: $*" >&2
  exit 1
}
command -v cargo >/dev/null || fail "cargo is missing; get it from https://rustup.rs"
if ! [ -d "$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown" ]; then
  command -v rustup >/dev/null || fail "this Rust has no wasm32-unknown-unknown target and no rustup to get it with"
  rustup target add wasm32-unknown-unknown
fi

missing=()
command -v node >/dev/null && command -v npm >/dev/null || missing+=(nodejs npm)
if [ "${1:-}" = --browser ] && [ -z "${CHROMIUM:-}" ]; then
  command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null ||
    missing+=(chromium)
fi
[ ${#missing[@]} -eq 0 ] || scripts/install-packages "${missing[@]}"

# Again only when the lock file has changed.
packages() {
  if ! cmp -s "$1/package-lock.json" "$1/node_modules/.installed"; then
    (cd "$1" && npm ci --silent >&2)
    cp "$1/package-lock.json" "$1/node_modules/.installed"
  fi
}
packages tests/browser
[ "${1:-}" != --dawn ] || packages tests/dawn
