# Sourced by scripts that build: every package they need, as options of cargo. It compiles a dependency once for each set
# of features that the packages of a command want, so commands that name fewer would have wgpu and all above it compiled
# again. What is built is chosen by --bin, --test and the like. Without the viewer's clipboard and Wayland, which are half
# of what it would compile.
# shellcheck disable=SC2034 # for those that source this
packages=(--package ralu --package ralu-cli --package ralu-host --package ralu-hub --package ralu-testkit --package ralu-viewer
  --package ralu-web-types --package ralu-fuzz --no-default-features --features ralu/png,ralu-cli/bench)
