//! Kernel times as a trace that Perfetto (<https://ui.perfetto.dev>) and chrome://tracing show.
//!
//! The format is the Trace Event Format's JSON object: complete events (`"ph": "X"`) with times in microseconds, and
//! metadata (`"ph": "M"`) that names tracks.

use ralu::gpu::{KernelTime, ProgramTimes};
use serde_json::{Value, json};

/// A trace in the making.
#[derive(Default)]
pub struct Trace {
    events: Vec<Value>,
    processes: usize,
    /// Where the last process ends, in microseconds.
    end: f64,
}

impl Trace {
    /// Adds the programs of a run as a process, after those added before. Each program is a track; each of its runs
    /// is an event of category `program`, each dispatch in it one of category `kernel`.
    pub fn add(&mut self, name: &str, times: &[ProgramTimes]) {
        self.processes += 1;
        let (pid, zero) = (self.processes, self.end);
        let mut name_it = |what: &str, tid: usize, name: &str| {
            self.events.push(json!({
                "ph": "M", "name": what, "pid": pid, "tid": tid, "args": { "name": name },
            }));
        };
        name_it("process_name", 0, name);
        let mut tracks: Vec<&str> = vec![];
        for program in times {
            if !tracks.contains(&program.program.as_str()) {
                tracks.push(&program.program);
                name_it("thread_name", tracks.len(), &program.program);
            }
        }
        let microseconds = |seconds: f64| zero + 1e6 * seconds;
        for ProgramTimes { program, kernels } in times {
            let tid = tracks.iter().position(|track| track == program).map_or(0, |i| i + 1);
            let (Some(first), Some(last)) = (kernels.first(), kernels.last()) else { continue };
            let end = last.start + last.seconds;
            self.events.push(json!({
                "ph": "X", "cat": "program", "name": program, "pid": pid, "tid": tid,
                "ts": microseconds(first.start), "dur": 1e6 * (end - first.start),
            }));
            for KernelTime { label, kernel, flops, bytes, start, seconds } in kernels {
                self.events.push(json!({
                    "ph": "X", "cat": "kernel", "name": **label, "pid": pid, "tid": tid,
                    "ts": microseconds(*start), "dur": 1e6 * seconds,
                    "args": { "kernel": **kernel, "gflop": flops / 1e9, "bytes": bytes },
                }));
            }
            self.end = self.end.max(microseconds(end));
        }
    }

    /// The whole file. `environment` says where it was measured.
    pub fn document(self, environment: Value) -> Value {
        json!({ "displayTimeUnit": "ms", "otherData": environment, "traceEvents": self.events })
    }
}
