# Sourced behind common.sh by lanes on Mesa 26, which is unpacked into a folder of its own.

# use_mesa26 BITS: with vectors of so many bits. Sets `runner`, what programs are started by.
use_mesa26() {
  local mesa=$PORTABILITY/mesa26 code=0
  scripts/lanes/unpack-mesa trixie-backports "$mesa" >"$OUT/setup.log" 2>&1 || code=$?
  if [ $code != 0 ]; then
    [ $code = 77 ] || tail -n 5 "$OUT/setup.log" >&2
    not_run "$(tail -n 1 "$OUT/setup.log")"
  fi
  grep -qw avx512f /proc/cpuinfo || [ "$1" != 512 ] || not_run "this processor has no vectors of 512 bits"
  # Its C library is newer than the system's, so programs are started by its own dynamic linker.
  # shellcheck disable=SC2034 # for who sources this
  runner=("$mesa/usr/lib64/ld-linux-x86-64.so.2" --library-path "$mesa/usr/lib/x86_64-linux-gnu")
  export VK_DRIVER_FILES=$mesa/drivers/lvp.json VK_ICD_FILENAMES=$mesa/drivers/lvp.json LP_NATIVE_VECTOR_WIDTH=$1
}
