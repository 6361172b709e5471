//! The viewer's window, and what xdotool does to it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::screen::Screen;

/// A running viewer.
pub struct Window {
    viewer: Child,
    display: String,
    id: String,
}

impl Window {
    /// Starts the viewer in `folder`, where it keeps its state and saves pictures. Not with a home of its own: drivers
    /// keep compiled kernels in the user's.
    pub fn open(screen: &Screen, folder: &Path, arguments: &[&str]) -> Window {
        let log = std::fs::File::create(folder.join("viewer.log")).unwrap();
        let viewer = command_for(Path::new(env!("CARGO_BIN_EXE_ralu-viewer")))
            .args(arguments)
            .current_dir(folder)
            .env("DISPLAY", &screen.display)
            .env("XDG_CONFIG_HOME", folder.join("config"))
            .env_remove("WAYLAND_DISPLAY")
            // No desktop's dialogs: neither a portal nor zenity.
            .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
            .env("PATH", "")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut window = Window { viewer, display: screen.display.clone(), id: String::new() };
        window.appears(folder, "");
        window
    }

    /// Waits for a window with `part` in its title: the first, or the one that comes in place of it.
    pub fn appears(&mut self, folder: &Path, part: &str) {
        let started = Instant::now();
        let pid = self.viewer.id().to_string();
        loop {
            assert!(started.elapsed() < super::RUN, "no window appears: {part}");
            assert!(self.is_alive(), "{}", log_of(folder));
            std::thread::sleep(Duration::from_millis(200));
            let found = self.ask(&["search", "--onlyvisible", "--pid", &pid]);
            let Some(id) = found.lines().next() else { continue };
            self.id = id.to_owned();
            if self.title().contains(part) {
                break;
            }
        }
        // No window manager is there to give it the focus.
        self.tell(&["windowfocus", "--sync"]);
    }

    /// Drags a file or folder onto the middle of the window.
    pub fn drop_file(&self, path: &Path) {
        super::drop::drop_on(&self.display, self.id.parse().unwrap(), (590, 390), path);
    }

    /// What the viewer has used of the processors so far.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.viewer.id())
    }

    /// xdotool's answer.
    fn ask(&self, arguments: &[&str]) -> String {
        let output = Command::new("xdotool")
            .args(arguments)
            .env("DISPLAY", &self.display)
            .output()
            .unwrap_or_else(|error| panic!("xdotool: {error}; run scripts/setup-viewer.sh"));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A command of xdotool about this window.
    fn tell(&self, command: &[&str]) {
        let mut arguments = command.to_vec();
        arguments.push(&self.id);
        self.ask(&arguments);
    }

    pub fn key(&self, key: &str) {
        self.ask(&["key", "--clearmodifiers", key]);
        std::thread::sleep(Duration::from_millis(60));
    }

    pub fn type_text(&self, text: &str) {
        self.ask(&["type", "--delay", "25", text]);
        std::thread::sleep(Duration::from_millis(200));
    }

    /// Presses the button at one place and lets it go at another.
    pub fn drag(&self, from: (i32, i32), to: (i32, i32)) {
        let go = |at: (i32, i32)| {
            self.ask(&["mousemove", &at.0.to_string(), &at.1.to_string()]);
            std::thread::sleep(Duration::from_millis(80));
        };
        go(from);
        self.ask(&["mousedown", "1"]);
        for i in 0..=8 {
            go((from.0 + (to.0 - from.0) * i / 8, from.1 + (to.1 - from.1) * i / 8));
        }
        self.ask(&["mouseup", "1"]);
    }

    /// Turns the wheel down over a place.
    pub fn scroll_down(&self, at: (i32, i32), turns: usize) {
        self.ask(&["mousemove", &at.0.to_string(), &at.1.to_string()]);
        self.ask(&["click", "--repeat", &turns.to_string(), "--delay", "20", "5"]);
        std::thread::sleep(Duration::from_millis(300));
    }

    pub fn resize(&self, width: u32, height: u32) {
        self.ask(&["windowsize", &self.id, &width.to_string(), &height.to_string()]);
        std::thread::sleep(Duration::from_millis(900));
    }

    /// Width and height.
    pub fn size(&self) -> (u32, u32) {
        let answer = self.ask(&["getwindowgeometry", "--shell", &self.id]);
        let find = |name: &str| {
            let line = answer.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        (find("WIDTH="), find("HEIGHT="))
    }

    pub fn minimise(&self) {
        self.tell(&["windowunmap"]);
        std::thread::sleep(Duration::from_millis(900));
    }

    pub fn restore(&self) {
        self.tell(&["windowmap"]);
        std::thread::sleep(Duration::from_millis(500));
        self.tell(&["windowfocus"]);
    }

    pub fn title(&self) -> String {
        self.ask(&["getwindowname", &self.id])
    }

    /// Waits until the title has `part`; it says how far a run is.
    pub fn wait_for_title(&mut self, part: &str, patience: Duration) {
        self.wait_for_titles(&[part], patience);
    }

    /// Waits until the title has one of `parts`.
    pub fn wait_for_titles(&mut self, parts: &[&str], patience: Duration) {
        let started = Instant::now();
        loop {
            let title = self.title();
            if parts.iter().any(|part| title.contains(part)) {
                return;
            }
            assert!(self.is_alive(), "the viewer ended while {parts:?} was waited for");
            assert!(
                started.elapsed() < patience,
                "the title is {title:?}; {parts:?} was waited for in vain"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn is_alive(&mut self) -> bool {
        self.viewer.try_wait().unwrap().is_none()
    }

    /// Closes the window and sees it end well. (Without a window manager there is no cross, which does the same.)
    pub fn close(mut self) {
        self.key("ctrl+q");
        let started = Instant::now();
        loop {
            if let Some(status) = self.viewer.try_wait().unwrap() {
                assert!(status.success(), "the viewer ended with {status}");
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "the window does not close");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A command that runs `program` as cargo would: with its runner, if there is one.
pub fn command_for(program: &Path) -> Command {
    let arch = std::env::consts::ARCH.to_uppercase();
    let runner = std::env::var(format!("CARGO_TARGET_{arch}_UNKNOWN_LINUX_GNU_RUNNER"));
    let runner = runner.unwrap_or_default();
    let mut words = runner.split_whitespace().map(Path::new).chain([program]);
    let mut command = Command::new(words.next().unwrap_or(program));
    command.args(words);
    command
}

/// Processor seconds that a process has used so far, of all its threads.
pub fn cpu_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // proc(5): after the name in parentheses, user and system time are the 12th and 13th word, in hundredths.
    let words = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    words.skip(11).take(2).filter_map(|word| word.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn log_of(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("viewer.log")).unwrap_or_default()
}

impl Drop for Window {
    fn drop(&mut self) {
        let _ = self.viewer.kill();
        let _ = self.viewer.wait();
    }
}
