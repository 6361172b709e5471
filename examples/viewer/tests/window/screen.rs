//! A screen that nobody sees: Xvfb, whose pixels lie in a file.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A running X server.
pub struct Screen {
    server: Child,
    pub display: String,
    /// Holds `Xvfb_screen0`, an XWD file that is the screen.
    folder: tempfile::TempDir,
}

/// So that tests of one process have a server each.
static NEXT: AtomicU32 = AtomicU32::new(0);

impl Screen {
    pub fn start(width: u32, height: u32) -> Screen {
        let folder = tempfile::tempdir().unwrap();
        let number = 300 + std::process::id() % 3000 + 4000 * NEXT.fetch_add(1, Ordering::Relaxed);
        let display = format!(":{number}");
        let size = format!("{width}x{height}x24");
        let server = Command::new("Xvfb")
            .arg(&display)
            // A desktop has other clients; here the server would begin anew whenever the window is closed, and refuse a
            // viewer that starts itself again in that moment.
            .args(["-noreset", "-screen", "0", &size, "-nolisten", "tcp", "-fbdir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("Xvfb: {error}; run scripts/setup-viewer.sh"));
        let socket = PathBuf::from(format!("/tmp/.X11-unix/X{number}"));
        let started = Instant::now();
        while !socket.exists() {
            assert!(started.elapsed() < Duration::from_secs(20), "Xvfb does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Screen { server, display, folder }
    }

    /// What is on the screen.
    pub fn picture(&self) -> image::RgbImage {
        let bytes = std::fs::read(self.folder.path().join("Xvfb_screen0")).unwrap();
        // XWDFile.h: big-endian words; the header's size, then …, width, height, …, bytes a line at 12, colours at 19.
        let word =
            |i: usize| u32::from_be_bytes(bytes[4 * i..4 * i + 4].try_into().unwrap()) as usize;
        let (header, width, height, line, colours) =
            (word(0), word(4), word(5), word(12), word(19));
        let pixels = &bytes[header + 12 * colours..];
        image::RgbImage::from_fn(width as u32, height as u32, |x, y| {
            let at = y as usize * line + 4 * x as usize;
            image::Rgb([pixels[at + 2], pixels[at + 1], pixels[at]])
        })
    }

    /// The stages of the run that is shown, at the bottom.
    pub fn timeline(&self) -> image::RgbImage {
        let picture = self.picture();
        let high = 80.min(picture.height());
        let top = picture.height() - high;
        image::imageops::crop_imm(&picture, 0, top, picture.width(), high).to_image()
    }

    /// Leaves a screenshot to be looked at.
    pub fn shoot(&self, name: &str) {
        // On a busy machine without a GPU a frame may take as long: what was asked for is on the screen then.
        std::thread::sleep(Duration::from_millis(1200));
        let folder = super::root().join("target/viewer");
        std::fs::create_dir_all(&folder).unwrap();
        self.picture().save(folder.join(format!("{name}.png"))).unwrap();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
