//! The system's dialogs for files: the desktop portal's where there are portals, and nothing of a toolkit is linked.
//!
//! They run on threads of their own, as a window must not wait. Where the system has none, that is told, and the field
//! for paths remains.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use rfd::AsyncFileDialog;

/// What one is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A folder.
    Model,
    /// A file of any kind that can be opened.
    File,
}

/// Ends of files that can be opened.
const FILES: [&str; 7] = ["safetensors", "sft", "gguf", "json", "png", "jpg", "webp"];

/// An open dialog.
pub struct Dialog(Receiver<Result<Option<PathBuf>, String>>);

impl Dialog {
    /// Opens one. `wake` is called when it is answered.
    pub fn open(wanted: Wanted, wake: impl Fn() + Send + 'static) -> Dialog {
        listen();
        let (tell, answer) = channel();
        // Made here, as some systems want dialogs from the window's thread, and waited for elsewhere.
        let dialog = AsyncFileDialog::new();
        let chosen: std::pin::Pin<Box<dyn Future<Output = Option<rfd::FileHandle>> + Send>> =
            match wanted {
                Wanted::Model => {
                    Box::pin(dialog.set_title("A model in diffusers' layout").pick_folder())
                }
                Wanted::File => Box::pin(
                    dialog
                        .set_title("A model's file, a LoRA, or a picture that ralu made")
                        .add_filter("models, LoRAs, pictures", &FILES)
                        .pick_file(),
                ),
            };
        std::thread::spawn(move || {
            let chosen = pollster::block_on(chosen);
            let answer = match (chosen, HEARD.lock().ok().and_then(|mut heard| heard.take())) {
                (Some(file), _) => Ok(Some(file.path().to_path_buf())),
                (None, None) => Ok(None),
                (None, Some(reason)) => Err(reason),
            };
            // Nobody waits for it any more if the window is closed.
            let _ = tell.send(answer);
            wake();
        });
        Dialog(answer)
    }

    /// What was chosen, once it is known: nothing at all if it was left without a choice.
    pub fn answer(&self) -> Option<Result<Option<PathBuf>, String>> {
        match self.0.try_recv() {
            Ok(Err(reason)) => Some(Err(format!(
                "this system has no file dialog ({reason}); type the path (Ctrl+L), drop it on the window, or install \
                 a desktop portal or zenity"
            ))),
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Ok(None)),
        }
    }
}

/// The dialog's library gives no reason where it could open none; it writes one to the log.
static HEARD: Mutex<Option<String>> = Mutex::new(None);

struct Listener;

impl log::Log for Listener {
    fn enabled(&self, about: &log::Metadata<'_>) -> bool {
        about.target().starts_with("rfd") && about.level() == log::Level::Error
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args().to_string();
        // It tries one way after the other; only the last one's failure is one.
        if self.enabled(record.metadata())
            && text.starts_with("Failed to pick")
            && let Ok(mut heard) = HEARD.lock()
        {
            *heard = Some(text);
        }
    }

    fn flush(&self) {}
}

fn listen() {
    // A second time it is there already.
    if log::set_logger(&Listener).is_ok() {
        log::set_max_level(log::LevelFilter::Error);
    }
}
