# Sourced by every lane: how it says what it is, what it could not do, and what its steps came to. The lane's own folder
# is $OUT; report/src/results.rs reads what is written there.
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
report=target/tools/release/report
steps_failed=0

# about KEY TEXT: `adapter`, `driver` or `reason`.
about() { printf '%s\t%s\n' "$1" "$2" >>"$OUT/about.tsv"; }

# The lane cannot be run here, and that is not a pass.
not_run() {
  about reason "$*"
  echo "   not run: $*" >&2
  exit 77
}

# record STEP STATE SECONDS NOTE
record() {
  printf '%s\t%s\t%s\t%s\n' "$@" >>"$OUT/steps.tsv"
  printf '   %-12s %-8s %7s s  %s\n' "$@" >&2
}

# skip STEP WHY
skip() { record "$1" "not run" 0 "$2"; }

# step NAME COMMAND...: what it prints goes to a log. Of it, the number of tests that passed and a line that starts with
# `note: ` are kept; `part: ` says that not all of it was run. A step that fails does not end the lane: the others say what else is wrong.
step() {
  local name=$1 log=$OUT/$1.log state=passed start=$EPOCHREALTIME seconds note
  shift
  # Not in a condition of this shell, where `set -e` would be off inside functions.
  set +e
  (
    set -e
    "$@"
  ) >"$log" 2>&1
  [ $? -eq 0 ] || state=failed
  set -e
  seconds=$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
  note=$(awk '/^test result:/ { passed += $4; failed += $6 }
    /^note: / { note = substr($0, 7) }
    /^part: / { note = (note ? note "; " : "") "only " substr($0, 7) }
    END { if (passed + failed) printf "%d of %d tests%s", passed, passed + failed, note ? "; " : ""; print note }' "$log")
  if [ $state = passed ] && grep -q '^part: ' "$log"; then state="in part"; fi
  if [ "$state" = failed ]; then
    steps_failed=1
    note="${note:+$note; }log: ${log#"$PWD/"}"
    tail -n 15 "$log" | sed 's/^/      /' >&2
  fi
  record "$name" "$state" "$seconds" "$note"
}

# Packages by Debian's names; without them the lane is not run.
need_packages() {
  scripts/install-packages "$@" || not_run "$* could not be installed"
}

# The last line of a lane.
finish() { exit "$steps_failed"; }
