//! Losing the GPU.
//!
//! Whatever was on it is gone, the window's own pixels too, and drivers often give no second device to the process that
//! lost the first. So the program starts itself anew: the window comes back as it was, and says what happened.

use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A GPU that is lost sooner after a start would be lost for ever.
const TOO_SOON: Duration = Duration::from_secs(10);
/// Starts that may end so, one after the other.
const TRIES: u32 = 3;

/// Why the GPU was lost, if it was; shared with the device's callback.
#[derive(Clone, Default)]
pub struct Loss(Arc<Mutex<Option<String>>>);

impl Loss {
    pub fn note(&self, reason: &str) {
        if let Ok(mut noted) = self.0.lock() {
            noted.get_or_insert_with(|| reason.to_owned());
        }
    }

    /// The same after a panic, which may be ahead of the thread that says why.
    pub fn reason_after_panic(&self) -> Option<String> {
        (0..20).find_map(|i| {
            std::thread::sleep(Duration::from_millis(if i == 0 { 0 } else { 50 }));
            self.reason()
        })
    }

    pub fn reason(&self) -> Option<String> {
        self.0.lock().ok().and_then(|noted| noted.clone())
    }
}

/// What a start is told of the loss before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    pub reason: String,
    /// Losses that came too soon, in a row.
    pub soon: u32,
}

impl Before {
    /// From the two words after `--after-loss`, which only this program says.
    pub fn read(reason: String, soon: &str) -> Option<Before> {
        Some(Before { reason, soon: soon.parse().ok()? })
    }

    pub fn message(&self) -> String {
        let reason = self.reason.trim_end_matches('.');
        let advice = if self.soon > 1 {
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

/// Starts the program anew, in place of this one.
pub fn start_again(reason: &str, started: Instant, before: Option<&Before>) -> ExitCode {
    let soon = match before {
        _ if started.elapsed() > TOO_SOON => 0,
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
    let error = replace(&mut command);
    eprintln!("error: the window cannot be opened again ({error}); start `ralu-viewer`");
    ExitCode::FAILURE
}

/// Runs it in place of this program. Comes back only if that cannot be.
#[cfg(unix)]
fn replace(command: &mut Command) -> std::io::Error {
    std::os::unix::process::CommandExt::exec(command)
}

/// The same where there is no such thing: whoever waits for this program waits for the new one.
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
        let before = Before { reason: "hung".into(), soon: TRIES - 1 };
        assert_eq!(start_again("hung", Instant::now(), Some(&before)), ExitCode::FAILURE);
        assert!(before.message().contains("again and again"));
        assert_eq!(
            Before::read("hung".into(), "1"),
            Some(Before { reason: "hung".into(), soon: 1 })
        );
        assert_eq!(Before::read("hung".into(), "often"), None);
    }
}
