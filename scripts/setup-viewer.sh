#!/usr/bin/env bash
# Installs what the viewer's tests need and this machine lacks: an X server that nobody sees, and something that
# presses its keys. Debian and Ubuntu; elsewhere it says what is missing.
set -euo pipefail
"$(dirname "${BASH_SOURCE[0]}")/setup.sh"

missing=()
command -v Xvfb >/dev/null || missing+=(xvfb)
command -v xdotool >/dev/null || missing+=(xdotool)
# What winit loads when it opens a window.
libraries=$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p)
for pair in libX11-xcb.so.1:libx11-xcb1 libXcursor.so.1:libxcursor1 libXi.so.6:libxi6 libXrandr.so.2:libxrandr2 \
  libxkbcommon-x11.so.0:libxkbcommon-x11-0; do
  [[ $libraries == *${pair%%:*}* ]] || missing+=("${pair##*:}")
done

[ ${#missing[@]} -eq 0 ] || "$(dirname "${BASH_SOURCE[0]}")/install-packages" "${missing[@]}"
