//! A racer's process: started when first needed, asked with a time limit, replaced after it failed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use race::protocol::{Answer, Ask, Hello};

/// What a peer computes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The graphics adapter, through WebGPU.
    WebGpu,
    /// The graphics adapter, through Vulkan alone.
    Vulkan,
    /// The processor itself.
    Cpu,
}

/// Who can take part.
pub struct Spec {
    pub name: &'static str,
    pub kind: Kind,
    /// A binary of this workspace, or a file in `python/`.
    program: Program,
}

enum Program {
    Binary(&'static str),
    Script(&'static str),
}

/// All of them, ralu first.
pub const SPECS: [Spec; 6] = [
    Spec { name: "ralu", kind: Kind::WebGpu, program: Program::Binary("racer-ralu") },
    Spec { name: "burn", kind: Kind::WebGpu, program: Program::Binary("racer-burn") },
    Spec {
        name: "onnxruntime",
        kind: Kind::WebGpu,
        program: Program::Script("onnxruntime_webgpu.py"),
    },
    Spec { name: "ggml", kind: Kind::Vulkan, program: Program::Script("ggml_vulkan.py") },
    Spec { name: "candle", kind: Kind::Cpu, program: Program::Binary("racer-candle") },
    Spec { name: "torch", kind: Kind::Cpu, program: Program::Script("torch_cpu.py") },
];

/// Where things are.
pub struct Places {
    /// This crate.
    pub root: PathBuf,
    /// Binaries, the Python environment and logs.
    pub target: PathBuf,
    /// What has to stand in front of a program for the adapter's driver to load.
    pub runner: Vec<String>,
}

/// A peer, running or not.
pub struct Peer {
    pub spec: &'static Spec,
    pub hello: Option<Hello>,
    /// Why it cannot run at all.
    pub absent: Option<String>,
    process: Option<Process>,
}

struct Process {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Peer {
    pub fn new(spec: &'static Spec) -> Self {
        Peer { spec, hello: None, absent: None, process: None }
    }

    fn log(&self, places: &Places) -> PathBuf {
        places.target.join(format!("{}.log", self.spec.name))
    }

    fn command(&self, places: &Places) -> Result<Command, String> {
        let (program, arguments) = match self.spec.program {
            Program::Binary(name) => (places.target.join("release").join(name), None),
            Program::Script(name) => {
                (places.target.join("venv/bin/python"), Some(places.root.join("python").join(name)))
            }
        };
        if !program.exists() {
            let shown = program.file_name().map(|name| name.to_string_lossy().into_owned());
            return Err(format!("{} was not built", shown.unwrap_or_default()));
        }
        let on_adapter = self.spec.kind != Kind::Cpu;
        let mut command = match places.runner.split_first() {
            Some((runner, rest)) if on_adapter => {
                let mut command = Command::new(runner);
                command.args(rest).arg(program);
                command
            }
            _ => Command::new(program),
        };
        command.args(arguments);
        // Idle threads of a peer must not take the processor from whose turn it is.
        command.env("OMP_WAIT_POLICY", "PASSIVE").env("KMP_BLOCKTIME", "0");
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        Ok(command)
    }

    fn start(&mut self, places: &Places, patience: Duration) -> Result<(), String> {
        let log = File::create(self.log(places)).map_err(|error| error.to_string())?;
        let mut command = self.command(places)?;
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or("a racer without pipes")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.starts_with('{') && sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut process = Process { child, input, lines };
        let hello = process.line(patience).and_then(|line| {
            serde_json::from_str::<Hello>(&line).map_err(|error| error.to_string())
        });
        match hello {
            Ok(hello) => {
                self.hello = Some(hello);
                self.process = Some(process);
                Ok(())
            }
            Err(error) => {
                process.end();
                Err(format!("{error}{}", last_words(&self.log(places))))
            }
        }
    }

    /// Asks, and waits for the answer at most `patience`. After a crash or a hang the next question starts a new
    /// process.
    pub fn ask(
        &mut self,
        ask: &Ask,
        places: &Places,
        patience: Duration,
    ) -> Result<Answer, String> {
        if let Some(reason) = &self.absent {
            return Err(reason.clone());
        }
        if self.process.is_none()
            && let Err(error) = self.start(places, patience)
        {
            let reason = format!("not run: {error}");
            self.absent = Some(reason.clone());
            return Err(reason);
        }
        let Some(process) = &mut self.process else {
            return Err("not run".into());
        };
        match process.ask(ask, patience) {
            Ok(Answer { error: Some(error), .. }) => Err(error),
            Ok(answer) => Ok(answer),
            Err(error) => {
                self.end();
                Err(format!("{error}{}", last_words(&self.log(places))))
            }
        }
    }

    /// Whether a process of it is there.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Ends the process.
    pub fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end();
        }
    }
}

impl Process {
    fn ask(&mut self, ask: &Ask, patience: Duration) -> Result<Answer, String> {
        let question = serde_json::to_string(ask).map_err(|error| error.to_string())?;
        // A write fails only if the racer has ended; then waiting for its answer says so.
        let _ = writeln!(self.input, "{question}");
        let line = self.line(patience)?;
        serde_json::from_str(&line).map_err(|error| format!("not an answer: {error}"))
    }

    fn line(&mut self, patience: Duration) -> Result<String, String> {
        let started = Instant::now();
        match self.lines.recv_timeout(patience) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("too slow: no answer after {:.0} s", started.elapsed().as_secs_f64()))
            }
            Err(RecvTimeoutError::Disconnected) => match self.child.wait() {
                Ok(status) => Err(format!("crashed ({status})")),
                Err(error) => Err(format!("crashed ({error})")),
            },
        }
    }

    fn end(&mut self) {
        // Of a process that has ended already neither can be done, nor needs to be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.end();
    }
}

/// The line of a log that says most about an end.
fn last_words(log: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // A Rust panic's message follows the line with its place.
    let panic = lines.iter().position(|line| line.contains("panicked at"));
    let line = panic.and_then(|at| lines.get(at + 1)).or(lines.last());
    line.map_or(String::new(), |line| format!(": {}", line.chars().take(240).collect::<String>()))
}
