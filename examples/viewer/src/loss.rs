//! Losing the GPU.
//!
//! Whatever was on it is gone, the window's own pixels too, and drivers often give no second device to the process that
//! lost the first. So the program starts itself again: the window comes back as it was, and says what happened.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::unfinished::{self, Unfinished};

/// A GPU that is lost sooner after a start would be lost for ever.
const TOO_SOON: Duration = Duration::from_secs(10);
/// Starts that may end so, one after the other.
const TRIES: u32 = 3;

/// Why the GPU was lost, if it was, and the runs that this ended; shared with the device's callback and the engine.
#[derive(Clone, Default)]
pub struct Loss(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    reason: Option<String>,
    unfinished: Vec<Unfinished>,
}

impl Loss {
    pub fn note(&self, reason: &str) {
        if let Ok(mut noted) = self.0.lock() {
            noted.reason.get_or_insert_with(|| reason.to_owned());
        }
    }

    /// Keeps a run to go on with, after those that were kept before.
    pub fn keep(&self, run: Option<Unfinished>) {
        if let Ok(mut noted) = self.0.lock() {
            noted.unfinished.extend(run);
        }
    }

    fn unfinished(&self) -> Vec<Unfinished> {
        self.0.lock().map(|noted| noted.unfinished.clone()).unwrap_or_default()
    }

    /// The same after a panic, which may be ahead of the thread that says why.
    pub fn reason_after_panic(&self) -> Option<String> {
        (0..20).find_map(|i| {
            std::thread::sleep(Duration::from_millis(if i == 0 { 0 } else { 50 }));
            self.reason()
        })
    }

    pub fn reason(&self) -> Option<String> {
        self.0.lock().ok().and_then(|noted| noted.reason.clone())
    }
}

/// What a start is told of the loss before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    pub reason: String,
    /// Losses that came too soon, in a row.
    pub soon: u32,
    /// A file with the runs that it ended, if there were any.
    pub unfinished: Option<PathBuf>,
}

impl Before {
    /// From the three words after `--after-loss`, which only this program says; the last may be empty.
    pub fn read(reason: String, soon: &str, unfinished: String) -> Option<Before> {
        let unfinished =
            Some(PathBuf::from(unfinished)).filter(|path| !path.as_os_str().is_empty());
        Some(Before { reason, soon: soon.parse().ok()?, unfinished })
    }

    /// What to say of it. `goes_on`: from where a run goes on, if one does.
    pub fn message(&self, goes_on: Option<&str>) -> String {
        let reason = self.reason.trim_end_matches('.');
        let advice = if let Some(place) = goes_on {
            return format!(
                "the GPU was lost: {reason}. It was opened again, and the run went on {place}"
            );
        } else if self.soon > 1 {
            "It is lost again and again: choose a smaller picture, close other programs that use the GPU, or look for \
             another adapter (`ralu devices`)"
        } else {
            "Draw again (R); if it comes back choose a smaller picture"
        };
        format!(
            "the GPU was lost: {reason}. It was opened again; what was set and painted is kept. {advice}"
        )
    }
}

/// Starts the program again, in place of this one.
pub fn start_again(
    loss: &Loss,
    reason: &str,
    started: Instant,
    before: Option<&Before>,
) -> ExitCode {
    let unfinished = loss.unfinished();
    let soon = match before {
        // Runs count their own losses, and leave a window without them.
        _ if started.elapsed() > TOO_SOON || !unfinished.is_empty() => 0,
        None => 1,
        Some(before) => before.soon + 1,
    };
    eprintln!("the GPU was lost: {reason}");
    if soon >= TRIES {
        eprintln!(
            "error: that happened {soon} times in a row, so there is no window to show it in; `ralu devices` lists \
             adapters, and a restart of the system helps where a driver hangs"
        );
        return ExitCode::FAILURE;
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            eprintln!("error: the window cannot be opened again ({error}); start `ralu-viewer`");
            return ExitCode::FAILURE;
        }
    };
    let mut command = Command::new(program);
    command.args(["--after-loss", reason, &soon.to_string()]);
    let path = match unfinished.is_empty() {
        true => PathBuf::new(),
        false => unfinished::write(&unfinished).unwrap_or_else(|error| {
            eprintln!("the run cannot be handed over, so it does not go on: {error}");
            PathBuf::new()
        }),
    };
    command.arg(path);
    let error = replace(&mut command);
    eprintln!("error: the window cannot be opened again ({error}); start `ralu-viewer`");
    ExitCode::FAILURE
}

/// Runs it in place of this program. Comes back only if that cannot be.
#[cfg(unix)]
fn replace(command: &mut Command) -> std::io::Error {
    std::os::unix::process::CommandExt::exec(command)
}

/// Runs it and waits for it, where no program can take another one's place: what waits for this program waits for the
/// new one.
#[cfg(not(unix))]
fn replace(command: &mut Command) -> std::io::Error {
    match command.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_is_the_one() {
        let loss = Loss::default();
        assert_eq!(loss.reason(), None);
        loss.clone().note("the driver hung");
        loss.note("the window could not be drawn");
        assert_eq!(loss.reason().as_deref(), Some("the driver hung"));
    }

    #[test]
    fn it_is_not_tried_for_ever() {
        let before = Before { reason: "hung".into(), soon: TRIES - 1, unfinished: None };
        let loss = Loss::default();
        assert_eq!(start_again(&loss, "hung", Instant::now(), Some(&before)), ExitCode::FAILURE);
        assert!(before.message(None).contains("again and again"));
        assert!(before.message(Some("from the start")).contains("the run went on from the start"));
        assert_eq!(
            Before::read("hung".into(), "1", "runs".into()),
            Some(Before { reason: "hung".into(), soon: 1, unfinished: Some("runs".into()) })
        );
        assert_eq!(Before::read("hung".into(), "1", String::new()).unwrap().unfinished, None);
        assert_eq!(Before::read("hung".into(), "often", String::new()), None);
    }
}
