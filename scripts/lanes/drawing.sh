# Sourced by lanes that run the engine: the op table, the model fixtures, and two pictures that must be those of the
# reference, which is the system's Mesa on the processor; and a model whose numbers leave f16's range.
source scripts/lanes/common.sh
source scripts/lanes/stock.sh

# What a lane may set before `draw_all`: what programs are started by, the system that they are built for where it is
# another than this, the command line's options for the adapter, and the ops of a lane that is too slow for the whole table.
runner=()
target=
adapter=()
ops=()
backend=vulkan
# As scripts/lanes/report wants it: an adapter's number, or a backend.
which=
fixtures=all
# The tests that compare a model with its reference, by parts of their names; all of them, if there are none.
models=(equals is_right)

# Latents of two drivers differ by rounding alone: relative L2, f32.
limit=1e-3

# Those that take seconds. Kernels with subgroups and cooperative matrices (linear, conv2d) are in the whole table alone.
few_ops=(norm euler renoise unpack activation)

# One seed for all. 256 x 256 is the least that gives RALU regions worth choosing.
prompt="a fox on a purple background"
seed=5
side=256

# The command line.
program() {
  case $target in
    '') echo target/release/ralu ;;
    *windows*) echo "target/$target/release/ralu.exe" ;;
  esac
}

# draw FOLDER NAME: plain or RALU, f32, with the kernels that are usual on a processor.
draw() {
  local folder=$1 name=$2 options
  case $name in
    plain) options=(--ralu off --steps 4) ;;
    ralu) options=(--ralu 7x) ;;
  esac
  mkdir -p "$folder"
  "${runner[@]}" "$(program)" generate "$prompt" --seed "$seed" --width "$side" --height "$side" \
    --precision f32 --no-tune --backend "$backend" "${adapter[@]}" "${options[@]}" --quiet \
    --save-tensors "$folder/$name.safetensors" --output "$folder/$name.png"
}

# picture NAME: draws it on this lane, and compares. `f16` is the plain one with weights in 16 bits.
picture() {
  draw "$OUT" "$1"
  local reference=$1 most=$limit
  [ "$1" != f16 ] || reference=plain most=45dB
  "$report" compare "$PORTABILITY/shared/reference/$reference.safetensors" "$OUT/$1.safetensors" "$most"
}

# pictures NAME...: a step for each, if there is what to compare with.
pictures() {
  local name
  if scripts/lanes/reference >"$OUT/reference.log" 2>&1; then
    for name in "$@"; do step "$name" picture "$name"; done
  else
    for name in "$@"; do skip "$name" "nothing to compare with: $(tail -n 1 "$OUT/reference.log")"; done
  fi
}

# What the lane draws on, and how its programs are started.
use_adapter() {
  "${runner[@]}" "$(program)" devices --json >"$OUT/devices.json" ||
    not_run "no adapter could be used: $(tr -d '\n' <"$OUT/devices.json")"
  "$report" adapter "${which:-$backend}" "$OUT/devices.json" >>"$OUT/about.tsv" || not_run "no $backend adapter"
  export RALU_TEST_BACKEND=$backend
}

draw_all() {
  use_adapter
  [ -z "$QUICK" ] || ops=("${few_ops[@]}")
  [ -z "$MATRICES" ] || ops=(linear attention conv2d --skip masked --skip grouped)
  # The two pictures first: they say the most.
  pictures plain ralu
  step ops op_table
  if [ -n "$QUICK" ]; then
    skip f16-range "left out by --quick"
    skip fixtures "left out by --quick"
  elif [ "$fixtures" = all ]; then
    step f16-range f16_range
    step fixtures run_module pipeline::references "${models[@]}"
  else
    skip f16-range "$fixtures"
    skip fixtures "$fixtures"
  fi
}

# run_test TEST ARGUMENT...: a test as scripts/lanes/test-programs built it.
run_test() {
  local program
  program=$(sed -n "s/^$1 //p" "$PORTABILITY/programs/${target:-native}")
  [ -n "$program" ] || { echo "the test $1 was not built" && return 1; }
  shift
  "${runner[@]}" "$program" "$@"
}

# run_module MODULE PART...: the tests of a module of the suite that have one of these parts in their names. None is a
# failure.
run_module() {
  local module=$1 name part names=()
  shift
  [ $# -gt 0 ] || set -- ''
  while read -r name; do
    for part in "$@"; do
      if [[ ${name#"$module::"} == *"$part"* ]]; then
        names+=("$name")
        break
      fi
    done
  done < <(run_test suite --list --format terse "$module::" | sed -n "s/^\($module::.*\): test\r\?$/\1/p")
  [ ${#names[@]} -gt 0 ] || { echo "no test of $module is called $*" && return 1; }
  run_test suite --exact "${names[@]}"
}

op_table() {
  [ -z "$MATRICES" ] || export RALU_TEST_CASE=matrices
  run_test ops "${ops[@]}"
  [ ${#ops[@]} -eq 0 ] || echo "part: ${ops[*]}"
}

# Weights in f16 against f32; products in f16 too, with blocks that leave its range, where the adapter has such products;
# and the test of its matrices.
f16_range() {
  run_test suite pipeline::matrices::
  run_test suite --nocapture pipeline::f16_range:: | tee "$OUT/f16-range.txt"
  sed -n -E 's/^(weights|products) [^:]*: ([^,]*).*/\1 \2/p' "$OUT/f16-range.txt" | paste -sd, | sed 's/^/note: /; s/,/, /'
}
