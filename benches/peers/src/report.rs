//! What came out: `race.json`, and the same as tables in `README.md`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::peer::{Kind, Peer, SPECS};

/// Everything that was measured.
#[derive(Serialize, Deserialize)]
pub struct Report {
    /// UTC.
    date: String,
    /// Of the repository, when the race was run.
    commit: String,
    command: String,
    cpu: String,
    rounds: usize,
    peers: Vec<PeerReport>,
    cases: Vec<CaseReport>,
}

/// Who took part, or why not.
#[derive(Serialize, Deserialize)]
struct PeerReport {
    name: String,
    version: Option<String>,
    device: Option<String>,
    absent: Option<String>,
}

/// A line of a table.
#[derive(Serialize, Deserialize)]
pub struct CaseReport {
    pub group: String,
    pub label: String,
    pub flops: Option<f64>,
    /// A relative error beyond this is wrong.
    pub tolerance: f64,
    /// When and of which commit; an earlier run's, where `--keep` took it over.
    #[serde(default)]
    pub date: String,
    #[serde(default)]
    pub commit: String,
    pub entries: Vec<Entry>,
}

/// A peer in a case.
#[derive(Serialize, Deserialize)]
pub struct Entry {
    pub peer: String,
    /// How often a measurement repeated it.
    pub repeats: usize,
    /// Seconds of one repetition, by round.
    pub wall: Vec<f64>,
    /// Seconds of processor time of one repetition, by round.
    pub cpu: Vec<f64>,
    /// Distance from what the result should be.
    pub relative_error: Option<f64>,
    /// How it was done, where there is a choice.
    pub note: String,
    /// Why there is no measurement.
    pub error: Option<String>,
}

impl Entry {
    pub fn of(peer: &str) -> Self {
        Entry {
            peer: peer.into(),
            repeats: 1,
            wall: Vec::new(),
            cpu: Vec::new(),
            relative_error: None,
            note: String::new(),
            error: None,
        }
    }

    /// Median seconds, if it was measured.
    fn seconds(&self, clock: Clock) -> Option<f64> {
        let mut seconds = match clock {
            _ if self.error.is_some() => return None,
            Clock::Cpu => self.cpu.clone(),
            Clock::Wall => self.wall.clone(),
        };
        seconds.sort_by(f64::total_cmp);
        let middle = seconds.len() / 2;
        match seconds.len() {
            0 => None,
            n if n % 2 == 1 => Some(seconds[middle]),
            _ => Some((seconds[middle - 1] + seconds[middle]) / 2.0),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Clock {
    Cpu,
    Wall,
}

impl CaseReport {
    fn entry(&self, peer: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.peer == peer)
    }

    /// Whether its result is not what it should be.
    fn is_wrong(&self, entry: &Entry) -> bool {
        entry.relative_error.is_some_and(|error| error > self.tolerance)
    }

    /// Median seconds of what was measured and right.
    fn seconds(&self, entry: &Entry, clock: Clock) -> Option<f64> {
        entry.seconds(clock).filter(|_| !self.is_wrong(entry))
    }

    /// How many times longer `peer` takes than ralu.
    fn ratio(&self, peer: &str, clock: Clock) -> Option<f64> {
        let seconds = |name| self.seconds(self.entry(name)?, clock);
        Some(seconds(peer)? / seconds("ralu")?)
    }

    fn rate(&self, seconds: f64) -> String {
        match self.flops {
            Some(flops) => format!("{:.1}", flops / seconds / 1e9),
            None => format!("{seconds:.2} s"),
        }
    }

    /// For the terminal.
    pub fn shown(&self, entry: &Entry) -> String {
        let (Some(cpu), Some(wall)) =
            (self.seconds(entry, Clock::Cpu), self.seconds(entry, Clock::Wall))
        else {
            return entry.error.clone().unwrap_or_else(|| {
                format!("wrong: relative error {:.1e}", entry.relative_error.unwrap_or_default())
            });
        };
        let ratio = self.ratio(&entry.peer, Clock::Cpu).unwrap_or(f64::NAN);
        let error = entry.relative_error.map_or("not checked".into(), |e| format!("error {e:.1e}"));
        format!(
            "{:>8} per core, {:>8} by the clock, {ratio:.2} x ralu's time, {error} {}",
            self.rate(cpu),
            self.rate(wall),
            entry.note
        )
    }
}

fn output(program: &str, arguments: &[&str], directory: &Path) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir(directory).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

impl Report {
    /// Nothing measured yet.
    pub fn begin(repository: &Path, rounds: usize) -> Self {
        let unknown = || "unknown".to_owned();
        let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let field = |name: &str| {
                let line = text.lines().find(|line| line.starts_with(name))?;
                Some(line.split_once(':')?.1.trim().to_owned())
            };
            let cores = std::thread::available_parallelism().map_or(0, |n| n.get());
            let (name, family, model) =
                (field("model name")?, field("cpu family")?, field("model")?);
            Some(format!("{name} (family {family}, model {model}), {cores} cores"))
        });
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Report {
            date: output("date", &["-u", "+%Y-%m-%d %H:%M UTC"], repository)
                .unwrap_or_else(unknown),
            commit: output("git", &["rev-parse", "--short", "HEAD"], repository)
                .unwrap_or_else(unknown),
            command: ["benches/peers/race".to_owned()]
                .into_iter()
                .chain(arguments)
                .collect::<Vec<_>>()
                .join(" "),
            cpu: cpu.unwrap_or_else(unknown),
            rounds,
            peers: Vec::new(),
            cases: Vec::new(),
        }
    }

    /// Takes over what an earlier run wrote to `out`.
    pub fn keep(&mut self, out: &Path) -> io::Result<()> {
        let file = out.join("race.json");
        if file.exists() {
            let earlier: Report = serde_json::from_str(&fs::read_to_string(file)?)?;
            self.cases = earlier.cases;
            self.peers = earlier.peers;
        }
        Ok(())
    }

    /// Adds a case, in the place of an earlier run's.
    pub fn add(&mut self, mut case: CaseReport) {
        case.date.clone_from(&self.date);
        case.commit.clone_from(&self.commit);
        let same = |other: &CaseReport| other.group == case.group && other.label == case.label;
        match self.cases.iter().position(same) {
            Some(at) => self.cases[at] = case,
            None => self.cases.push(case),
        }
    }

    /// Notes who the peers are.
    pub fn describe(&mut self, peers: &[Peer]) {
        for peer in peers {
            let report = PeerReport {
                name: peer.spec.name.into(),
                version: peer.hello.as_ref().map(|hello| hello.version.clone()),
                device: peer.hello.as_ref().map(|hello| hello.device.clone()),
                absent: peer.absent.clone(),
            };
            match self.peers.iter().position(|other| other.name == report.name) {
                Some(at) => self.peers[at] = report,
                None => self.peers.push(report),
            }
        }
    }

    /// Writes both files, each under a temporary name first.
    pub fn write(&self, out: &Path) -> io::Result<()> {
        fs::create_dir_all(out)?;
        let write = |name: &str, text: String| {
            let temporary = out.join(format!("{name}.tmp"));
            fs::write(&temporary, text)?;
            fs::rename(temporary, out.join(name))
        };
        write("race.json", serde_json::to_string_pretty(self)? + "\n")?;
        // It cannot fail: a String takes every write.
        write("README.md", self.markdown().unwrap_or_default())
    }

    fn markdown(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let out = &mut text;
        writeln!(out, "# The race: ralu beside its peers\n")?;
        writeln!(
            out,
            "Written by `{}` on {} at commit {}; [benches/peers](../../benches/peers/README.md) says how it is \
             measured. The numbers behind it are in [race.json](race.json).\n",
            self.command, self.date, self.commit
        )?;
        writeln!(out, "Processor: {}. {} rounds, medians.\n", self.cpu, self.rounds)?;
        let earlier = self.cases.iter().filter(|case| case.date != self.date).count();
        if earlier > 0 {
            writeln!(
                out,
                "{earlier} of {} cases are from earlier runs; race.json has the date and commit of each.\n",
                self.cases.len()
            )?;
        }
        writeln!(out, "| | version | runs on |\n| --- | --- | --- |")?;
        for peer in &self.peers {
            let version = peer.version.as_deref().unwrap_or("not run");
            let device = peer.device.as_deref().or(peer.absent.as_deref()).unwrap_or("not run");
            writeln!(out, "| {} | {version} | {} |", peer.name, cell(device))?;
        }
        self.summary(out)?;
        for (group, title, about) in GROUPS {
            let cases: Vec<&CaseReport> =
                self.cases.iter().filter(|case| case.group == group).collect();
            if !cases.is_empty() {
                writeln!(out, "\n## {title}\n\n{about}")?;
                let mut notes = Vec::new();
                table(out, &cases, &self.peers, Clock::Cpu, &mut notes)?;
                table(out, &cases, &self.peers, Clock::Wall, &mut notes)?;
                for (i, note) in notes.iter().enumerate() {
                    writeln!(
                        out,
                        "{}[{}] {}  ",
                        if i == 0 { "\n" } else { "" },
                        i + 1,
                        cell(note)
                    )?;
                }
            }
        }
        Ok(text)
    }

    /// Per group and peer, how many times longer it takes: the least, the geometric mean, the most.
    fn summary(&self, out: &mut String) -> std::fmt::Result {
        let groups: Vec<_> = GROUPS
            .iter()
            .filter(|(group, ..)| self.cases.iter().any(|case| case.group == *group))
            .collect();
        writeln!(
            out,
            "\nProcessor time of each peer as a multiple of ralu's: least, geometric mean, most; above 1 ralu is faster.\n"
        )?;
        write!(out, "| |")?;
        for (_, title, _) in &groups {
            write!(out, " {title} |")?;
        }
        writeln!(out, "\n| --- |{}", " --- |".repeat(groups.len()))?;
        let row = |out: &mut String, name: &str, ratio: &dyn Fn(&CaseReport) -> Option<f64>| {
            write!(out, "| {name} |")?;
            for (group, ..) in &groups {
                let ratios: Vec<f64> = self
                    .cases
                    .iter()
                    .filter(|case| case.group == *group)
                    .filter_map(ratio)
                    .collect();
                match spread(&ratios) {
                    None => write!(out, " - |")?,
                    Some([least, mean, most]) if ratios.len() > 1 => {
                        write!(out, " {least:.2} .. **{mean:.2}** .. {most:.2} |")?
                    }
                    Some([_, mean, _]) => write!(out, " **{mean:.2}** |")?,
                }
            }
            writeln!(out)
        };
        let names = |kind: Option<Kind>| {
            SPECS
                .iter()
                .filter(move |spec| spec.name != "ralu" && kind.is_none_or(|k| k == spec.kind))
                .map(|spec| spec.name)
                .filter(|name| self.peers.iter().any(|peer| peer.name == *name))
        };
        for name in names(None) {
            row(out, name, &|case| case.ratio(name, Clock::Cpu))?;
        }
        row(out, "the fastest that ran through WebGPU", &|case| {
            names(Some(Kind::WebGpu))
                .filter_map(|name| case.ratio(name, Clock::Cpu))
                .min_by(f64::total_cmp)
        })
    }
}

const GROUPS: [(&str, &str, &str); 5] = [
    ("matmul", "Matmul", "M x K x N and how the weight is stored."),
    ("attention", "Attention", "Self-attention in f32 without a mask."),
    ("conv2d", "Convolution", "3 x 3 in f32: pixels, channels in to channels out."),
    (
        "blocks",
        "FLUX blocks",
        "A FLUX transformer of one double and one single block with random weights in bf16, one evaluation.",
    ),
    (
        "picture",
        "Whole pictures",
        "Prompt to pixels, without loading. The second run and later ones.",
    ),
];

fn spread(ratios: &[f64]) -> Option<[f64; 3]> {
    let least = ratios.iter().copied().min_by(f64::total_cmp)?;
    let most = ratios.iter().copied().max_by(f64::total_cmp)?;
    let mean = ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64;
    Some([least, mean.exp(), most])
}

/// Text that does not break a table.
fn cell(text: &str) -> String {
    text.replace('|', "/").replace('\n', " ")
}

fn table(
    out: &mut String,
    cases: &[&CaseReport],
    peers: &[PeerReport],
    clock: Clock,
    notes: &mut Vec<String>,
) -> std::fmt::Result {
    // A peer that did none of the group's cases for one reason is a note, not a column.
    let takes_part = |peer: &&PeerReport| {
        cases.iter().filter_map(|case| case.entry(&peer.name)).any(|entry| entry.error.is_none())
    };
    let unit = match (clock, cases.iter().any(|case| case.flops.is_some())) {
        (Clock::Cpu, true) => "GFLOP/s per core: operations by processor time of all threads",
        (Clock::Cpu, false) => "Seconds of processor time of all threads",
        (Clock::Wall, true) => "GFLOP/s by the clock, all cores, whatever else ran on them",
        (Clock::Wall, false) => "Seconds by the clock, all cores, whatever else ran on them",
    };
    writeln!(out, "\n{unit} (in brackets: ralu's speed-up)\n")?;
    let columns: Vec<&PeerReport> = peers.iter().filter(takes_part).collect();
    write!(out, "| |")?;
    for peer in &columns {
        write!(out, " {} |", peer.name)?;
    }
    writeln!(out, "\n| --- |{}", " --- |".repeat(columns.len()))?;
    for case in cases {
        write!(out, "| {} |", case.label)?;
        for peer in &columns {
            let text = match case.entry(&peer.name) {
                None => "-".into(),
                Some(entry) => match (case.seconds(entry, clock), case.ratio(&peer.name, clock)) {
                    (Some(seconds), Some(ratio)) if peer.name != "ralu" => {
                        format!("{} ({ratio:.2})", case.rate(seconds))
                    }
                    (Some(seconds), _) => case.rate(seconds),
                    (None, _) if case.is_wrong(entry) => {
                        let error = entry.relative_error.unwrap_or_default();
                        format!(
                            "wrong {}",
                            noted(notes, format!("{}: relative error {error:.1e}", peer.name))
                        )
                    }
                    (None, _) => {
                        let reason = entry.error.clone().unwrap_or_default();
                        format!("- {}", noted(notes, format!("{}: {reason}", peer.name)))
                    }
                },
            };
            write!(out, " {text} |")?;
        }
        writeln!(out)?;
    }
    if clock == Clock::Wall {
        for peer in peers.iter().filter(|peer| !takes_part(peer)) {
            let entry = cases.iter().find_map(|case| case.entry(&peer.name));
            if let Some(reason) = entry.and_then(|entry| entry.error.clone()) {
                noted(notes, format!("{}: {reason}", peer.name));
            }
        }
        methods(cases, peers, notes);
    }
    Ok(())
}

/// Notes how each peer did the group, and how far its results were off at most.
fn methods(cases: &[&CaseReport], peers: &[PeerReport], notes: &mut Vec<String>) {
    for peer in peers {
        let entries: Vec<&Entry> = (cases.iter())
            .filter_map(|case| {
                case.entry(&peer.name).filter(|e| case.seconds(e, Clock::Cpu).is_some())
            })
            .collect();
        let right = || entries.iter();
        let mut ways: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in right().filter(|entry| !entry.note.is_empty()) {
            *ways.entry(&entry.note).or_default() += 1;
        }
        let ways: Vec<String> =
            ways.iter().map(|(way, count)| format!("{way} ({count} cases)")).collect();
        let most = right().filter_map(|entry| entry.relative_error).max_by(f64::total_cmp);
        let error = most.map(|error| format!("relative error at most {error:.1e}"));
        let parts: Vec<String> = ways.into_iter().chain(error).collect();
        if !parts.is_empty() {
            notes.push(format!("{}: {}", peer.name, parts.join(", ")));
        }
    }
}

/// The number of a note, which is added if it is new.
fn noted(notes: &mut Vec<String>, note: String) -> String {
    let at = notes.iter().position(|other| *other == note).unwrap_or_else(|| {
        notes.push(note);
        notes.len() - 1
    });
    format!("[{}]", at + 1)
}
