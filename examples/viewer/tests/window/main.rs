//! The real window under Xvfb, driven by synthetic keys and a synthetic pointer: what a person does with it, step by
//! step. Screenshots of every step are left in `target/viewer/` to be looked at.
//!
//! `scripts/setup-viewer.sh` installs what it needs; without Xvfb and xdotool the tests say so and fail.

mod cost;
mod drop;
mod layout;
mod loras;
mod screen;
mod window;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use screen::Screen;
use window::{Window, command_for};

/// A run at 128 x 128 with two processor cores, and much patience.
const RUN: Duration = Duration::from_secs(150);
const SOON: Duration = Duration::from_secs(30);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read_png(path: &Path) -> image::RgbImage {
    image::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into_rgb8()
}

fn psnr(a: &image::RgbImage, b: &image::RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let square = |(a, b): (&u8, &u8)| (f64::from(*a) - f64::from(*b)).powi(2);
    let mse = a.iter().zip(b.iter()).map(square).sum::<f64>() / a.len() as f64;
    10.0 * (255.0f64.powi(2) / mse.max(1e-9)).log10()
}

/// The command line, which `scripts/viewer-test` builds before. It finds the bundled model from where it lies.
fn ralu() -> Command {
    command_for(&root().join("target/release/ralu"))
}

/// What `ralu generate --from` makes of a picture.
fn made_again(picture: &Path) -> image::RgbImage {
    let again = picture.with_extension("again.png");
    let output = ralu()
        .args(["--quiet", "generate", "--no-tune", "--from"])
        .arg(picture)
        .arg("-o")
        .arg(&again)
        .output()
        .unwrap_or_else(|error| panic!("ralu: {error}; run `cargo build --release --bin ralu`"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    read_png(&again)
}

#[test]
fn a_person_draws_paints_compares_and_saves() {
    let screen = Screen::start(1180, 780);
    let folder = tempfile::tempdir().unwrap();
    let mut window = Window::open(&screen, folder.path(), &[]);
    window.wait_for_title("ralu: tiny-flux", SOON);
    screen.shoot("1-open");

    // Type a prompt, a size and a seed; RALU 4x is what it starts with.
    window.key("p");
    window.key("ctrl+a");
    window.type_text("a red apple on a blue background");
    window.key("Escape");
    // From 256 x 256 to 128 x 128.
    for key in ["shift+w", "shift+w", "shift+h", "shift+h"] {
        window.key(key);
    }
    window.key("r");
    // On a processor, frames are few and steps of small pictures share one: the title may pass over any of them.
    let [one, two, three, done] = ["stage 1, step", "stage 2, step", "stage 3, step", "4x: done"];
    window.wait_for_titles(&[one, two, three, done], RUN);
    screen.shoot("2-stage1");
    window.wait_for_titles(&[two, three, done], RUN);
    window.key("m");
    window.wait_for_titles(
        &["stage 2, step 3", "stage 2, step 4", "stage 2, step 5", three, done],
        RUN,
    );
    screen.shoot("3-stage2-tokens");
    window.wait_for_title("RALU 4x: done", RUN);
    window.key("m");
    screen.shoot("4-done");
    let before = screen.picture();

    // Look at the edges, and back at a step of stage 1.
    window.key("e");
    screen.shoot("5-edges");
    window.key("e");
    for _ in 0..3 {
        window.key("Left");
    }
    screen.shoot("6-back");
    // What is saved is what is shown: there is no picture of an earlier moment to save.
    window.key("ctrl+s");
    window.wait_for_title("ralu: error: an earlier moment is shown", SOON);
    assert!(
        !folder.path().join("ralu-5.png").exists(),
        "another picture than the shown one is saved"
    );
    window.key("End");

    // Paint the upper left quarter's middle, and draw again from the end of stage 1.
    window.key("b");
    let canvas = (268 + 350, 780 / 2 - 60);
    window.drag((canvas.0 - 120, canvas.1 - 120), (canvas.0 - 40, canvas.1 - 60));
    screen.shoot("7-painted");
    assert!(screen.picture() != before, "nothing was painted");
    window.key("f");
    window.wait_for_title("RALU 4x: stage", RUN);
    window.wait_for_title("RALU 4x: done", RUN);
    screen.shoot("8-painted-done");

    // Save it: the picture must say how it was made, its regions too.
    window.key("ctrl+s");
    window.wait_for_title("ralu: saved", SOON);
    let saved = folder.path().join("ralu-5.png");
    let picture = read_png(&saved);
    assert_eq!(picture.dimensions(), (128, 128));
    let close = psnr(&picture, &made_again(&saved));
    assert!(close >= 50.0, "`ralu generate --from` makes another picture: PSNR {close:.1} dB");
    window.key("ctrl+e");
    window.wait_for_title("stages.png", SOON);
    let strip = read_png(&folder.path().join("ralu-5-stages.png"));
    assert_eq!(strip.dimensions(), (3 * 128 + 2 * 8, 128));

    // Plain sampling beside it, with few steps, and the wipe between them.
    window.key("x");
    for _ in 0..44 {
        window.key("shift+s");
    }
    window.key("v");
    window.wait_for_titles(&["plain, 6 steps: step", "RALU 4x: stage"], RUN);
    // The one with RALU is what is shown, and saved, in the end.
    window.wait_for_title("RALU 4x: done", RUN);
    screen.shoot("9-wipe");
    let wiped = screen.picture();
    window.key("shift+Right");
    window.key("shift+Right");
    screen.shoot("10-wiped");
    assert!(screen.picture() != wiped, "the wipe did not move");
    assert!(window.is_alive());
    window.close();

    // What was typed is there at the next start.
    let mut window = Window::open(&screen, folder.path(), &[]);
    window.wait_for_title("ralu: tiny-flux", SOON);
    let state = std::fs::read_to_string(folder.path().join("config/ralu/viewer.json")).unwrap();
    assert!(state.contains("a red apple on a blue background"), "{state}");
    window.close();

    // A picture of ours brings its request with it, when it is named at the start and when it is dropped.
    let path = saved.to_str().unwrap();
    let mut window = Window::open(&screen, folder.path(), &["--from", path]);
    window.wait_for_title("the request of", SOON);
    screen.shoot("11-opened");
    window.key("p");
    window.key("ctrl+a");
    window.type_text("something else");
    window.key("Escape");
    window.drop_file(&saved);
    window.wait_for_title("the request of", SOON);
    window.close();
    let state = std::fs::read_to_string(folder.path().join("config/ralu/viewer.json")).unwrap();
    assert!(state.contains("a red apple on a blue background"), "{state}");
}

#[test]
fn models_are_opened_by_path_by_drop_and_by_dialog() {
    let screen = Screen::start(1180, 780);
    let folder = tempfile::tempdir().unwrap();
    let fixture = root().join("tests/fixtures/flux-a/model");
    let mut window = Window::open(&screen, folder.path(), &[]);
    window.wait_for_title("ralu: tiny-flux", SOON);
    window.key("ctrl+l");
    window.type_text(fixture.to_str().unwrap());
    window.key("Return");
    window.wait_for_title("ralu: model", SOON);
    window.drop_file(&root().join("models/tiny-flux"));
    window.wait_for_title("ralu: tiny-flux", SOON);
    // What is typed stays after its error, to be corrected: a path that is not there, and a folder that is no model.
    let (there, last) = fixture.to_str().unwrap().split_at(fixture.to_str().unwrap().len() - 1);
    let (parent, model) = (fixture.parent().unwrap().to_str().unwrap(), "/model");
    for (typed, rest, error) in [(there, last, "cannot be opened"), (parent, model, "")] {
        window.key("ctrl+l");
        window.type_text(typed);
        window.key("Return");
        window.wait_for_title("ralu: error: ", SOON);
        assert!(window.title().contains(error), "{}", window.title());
        window.key("ctrl+l");
        window.key("End");
        window.type_text(rest);
        window.key("Return");
        window.wait_for_title("ralu: model", SOON);
        window.drop_file(&root().join("models/tiny-flux"));
        window.wait_for_title("ralu: tiny-flux", SOON);
    }
    // What is no model says so, and leaves the window usable.
    window.drop_file(folder.path());
    window.wait_for_title("ralu: error: ", SOON);
    screen.shoot("13-no-model");

    // There is no desktop here, so no dialog; the field for paths is still there.
    window.key("ctrl+o");
    window.wait_for_title("ralu: error: this system has no file dialog", SOON);
    window.key("ctrl+l");
    window.type_text(fixture.to_str().unwrap());
    window.key("Return");
    window.wait_for_title("ralu: model", SOON);
    window.key("ctrl+shift+o");
    window.wait_for_title("ralu: error: this system has no file dialog", SOON);
    window.close();

    // The model that was open is opened at the next start.
    let mut window = Window::open(&screen, folder.path(), &[]);
    window.wait_for_title("ralu: model", SOON);
    window.close();
}

#[test]
fn a_lost_gpu_is_opened_again() {
    let screen = Screen::start(1180, 780);
    let folder = tempfile::tempdir().unwrap();
    let mut window = Window::open(&screen, folder.path(), &["a blue car"]);
    window.wait_for_title("ralu: tiny-flux", SOON);
    for key in ["shift+w", "shift+w", "shift+h", "shift+h"] {
        window.key(key);
    }
    window.resize(1000, 700);
    // Undisturbed.
    window.key("r");
    window.wait_for_title("RALU 4x: done", RUN);
    window.key("ctrl+s");
    window.wait_for_title("ralu: saved", SOON);
    let undisturbed = read_png(&folder.path().join("ralu-5.png"));
    assert_eq!(undisturbed.dimensions(), (128, 128));
    // While it works, after a step.
    window.key("r");
    window.wait_for_titles(&["stage 1, step", "stage 2, step", "stage 3, step"], RUN);
    window.key("ctrl+shift+g");
    // It is as it was, and goes on by itself from there.
    let went_on = "ralu: the GPU was lost: it was closed. It was opened again, and the run went on after step";
    window.appears(folder.path(), went_on);
    screen.shoot("14-lost");
    assert_eq!(window.size(), (1000, 700));
    window.key("ctrl+s");
    window.wait_for_title("ralu: saved", SOON);
    let resumed = read_png(&folder.path().join("ralu-5-2.png"));
    assert!(resumed == undisturbed, "another picture: {:.1} dB", psnr(&resumed, &undisturbed));
    // What was before the loss is not in it.
    window.key("ctrl+e");
    window.wait_for_title("ralu: error: the GPU was lost in this run", SOON);
    // While it does nothing.
    window.key("ctrl+shift+g");
    window.appears(folder.path(), "ralu: error: the GPU was lost: it was closed");
    window.close();
    let state = std::fs::read_to_string(folder.path().join("config/ralu/viewer.json")).unwrap();
    assert!(state.contains("a blue car"), "{state}");
}

#[test]
fn nothing_that_happens_to_the_window_harms_it() {
    // A screen as large as 4K.
    let screen = Screen::start(3840, 2160);
    let folder = tempfile::tempdir().unwrap();
    let mut window = Window::open(&screen, folder.path(), &["a green frog"]);
    window.wait_for_title("ralu: tiny-flux", SOON);
    // A picture of 512 x 512: it is at work for longer than all that happens here takes.
    for key in ["w", "w", "w", "w", "h", "h", "h", "h"] {
        window.key(key);
    }
    window.key("r");
    window.wait_for_title("RALU 4x: stage", RUN);
    for (width, height) in [(1, 1), (3840, 2160), (300, 40), (40, 300), (1180, 780)] {
        window.resize(width, height);
        assert!(window.is_alive(), "it did not survive {width} x {height}");
    }
    window.minimise();
    assert!(window.is_alive(), "it did not survive being minimised");
    window.restore();

    // Stop at once, and draw again. A new run, in case that frames of 4K outlasted the first.
    window.key("r");
    window.wait_for_title("RALU 4x: stage", RUN);
    window.key("Escape");
    window.wait_for_title("RALU 4x: stopped", SOON);
    window.key("r");
    window.wait_for_title("RALU 4x: stage", RUN);

    // What cannot be opened is an error in the window.
    window.key("ctrl+l");
    window.type_text("/nowhere");
    window.key("Return");
    window.wait_for_title("ralu: error: /nowhere cannot be opened", SOON);
    screen.shoot("12-error");

    // Closed in the middle of a run.
    window.key("r");
    window.wait_for_title("RALU 4x: stage", RUN);
    window.close();
}
