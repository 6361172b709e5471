//! What is seen: edges, what can be pressed, and that nothing is covered or cut in small windows.

use image::{Rgb, RgbImage};

use super::screen::Screen;
use super::window::Window;
use super::{RUN, SOON};

/// Colours of `src/theme.rs`.
const PANEL: Rgb<u8> = Rgb([0x18, 0x1b, 0x1f]);
const AMBER: Rgb<u8> = Rgb([0xf2, 0xb8, 0x4b]);
/// Of the controls at the left.
const CONTROLS: u32 = 268;
/// The stages at the bottom.
const STAGES: u32 = 96;

fn luminance(colour: Rgb<u8>) -> f64 {
    let linear = |value: u8| match f64::from(value) / 255.0 {
        v if v <= 0.04045 => v / 12.92,
        v => ((v + 0.055) / 1.055).powf(2.4),
    };
    0.2126 * linear(colour[0]) + 0.7152 * linear(colour[1]) + 0.0722 * linear(colour[2])
}

fn contrast(a: Rgb<u8>, b: Rgb<u8>) -> f64 {
    let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
    a.max(b) / a.min(b)
}

/// How many pixels of a part of the screen have nearly a colour.
fn count(
    picture: &RgbImage,
    x: std::ops::Range<u32>,
    y: std::ops::Range<u32>,
    colour: Rgb<u8>,
) -> usize {
    let is_near = |found: Rgb<u8>| (0..3).all(|c| found[c].abs_diff(colour[c]) < 8);
    x.flat_map(|x| y.clone().map(move |y| (x, y)))
        .filter(|(x, y)| is_near(*picture.get_pixel(*x, *y)))
        .count()
}

/// The smallest part of the screen outside of which two pictures are the same: left, top, right, bottom.
fn difference(a: &RgbImage, b: &RgbImage) -> Option<[u32; 4]> {
    let places = a.enumerate_pixels().filter(|(x, y, pixel)| b.get_pixel(*x, *y) != *pixel);
    places.fold(None, |found: Option<[u32; 4]>, (x, y, _)| {
        let [left, top, right, bottom] = found.unwrap_or([x, y, x, y]);
        Some([left.min(x), top.min(y), right.max(x), bottom.max(y)])
    })
}

#[test]
fn windows_of_all_sizes_show_everything() {
    for (width, height) in [(800, 560), (1280, 800), (1920, 1080)] {
        let screen = Screen::start(width, height);
        let folder = tempfile::tempdir().unwrap();
        let mut window = Window::open(&screen, folder.path(), &["a red zyzzyva and a fox"]);
        window.wait_for_title("ralu: tiny-flux", SOON);
        window.resize(width, height);
        let name = |what: &str| format!("{width}x{height}-{what}");
        screen.shoot(&name("1-open"));
        let open = screen.picture();

        // The first edge from the top on is the prompt's.
        let column = (0..height).map(|y| *open.get_pixel(CONTROLS / 2, y));
        let edge = column.skip(24).map(|pixel| contrast(pixel, PANEL)).find(|found| *found > 1.05);
        assert!(edge.is_some_and(|edge| edge >= 3.0), "{width} x {height}: {edge:?}");
        // The button that draws is there, whole.
        let bottom = height - STAGES;
        let amber = count(&open, 14..CONTROLS - 14, bottom - 90..bottom, AMBER);
        assert!(amber > 4000, "{width} x {height}: {amber} pixels of the button that draws");

        // The last of the controls can be scrolled to, and is there when a key asks for it.
        window.scroll_down((100, 200), 40);
        screen.shoot(&name("2-scrolled"));
        assert!(difference(&open, &screen.picture()).is_some() || height > 800);
        window.key("ctrl+l");
        std::thread::sleep(std::time::Duration::from_millis(800));
        let before = screen.picture();
        window.type_text("a path");
        screen.shoot(&name("3-typed"));
        let [left, top, right, down] = difference(&before, &screen.picture()).expect("text");
        assert!(right < CONTROLS && down < bottom, "{left} {top} {right} {down}");
        window.key("ctrl+a");
        window.key("BackSpace");
        window.key("Escape");

        // The list of keys lies within the window.
        let before = screen.picture();
        window.key("F1");
        screen.shoot(&name("4-keys"));
        let [left, top, right, down] = difference(&before, &screen.picture()).expect("a list");
        let is_inside = left > 4 && top > 4 && right < width - 4 && down < height - 4;
        assert!(is_inside, "{width} x {height}: {left} {top} {right} {down}");
        window.key("F1");

        // What the model does not know is said above the picture.
        for key in ["shift+w", "shift+w", "shift+h", "shift+h"] {
            window.key(key);
        }
        window.key("r");
        window.wait_for_title("RALU 4x: done", RUN);
        screen.shoot(&name("5-done"));
        let done = screen.picture();
        let told = count(&done, CONTROLS + 8..width - 220, 0..120, AMBER);
        assert!(told > 100, "{width} x {height}: a word that the model does not know is not named");
        window.close();
    }
}

#[test]
fn what_cannot_be_pressed_says_why() {
    let screen = Screen::start(1180, 780);
    let folder = tempfile::tempdir().unwrap();
    let mut window = Window::open(&screen, folder.path(), &["--model", "/nowhere"]);
    window.wait_for_title("ralu: error: ", SOON);
    let bottom = 780 - STAGES;
    let amber =
        |screen: &Screen| count(&screen.picture(), 14..CONTROLS - 14, bottom - 90..bottom, AMBER);
    screen.shoot("disabled-1-no-model");
    assert_eq!(amber(&screen), 0, "there is nothing to draw with, and it looks as if there were");
    for (key, reason) in [
        ("r", "there is no model"),
        ("f", "there is no finished stage 1"),
        ("l", "there are no two runs to compare"),
        ("ctrl+s", "there is no picture to save"),
        ("x", "nothing is painted"),
        ("z", "there is no LoRA"),
    ] {
        window.key(key);
        window.wait_for_title(&format!("ralu: error: {reason}"), SOON);
    }
    // It looks different once there is a model.
    window.drop_file(&super::root().join("models/tiny-flux"));
    window.wait_for_title("ralu: tiny-flux", SOON);
    screen.shoot("disabled-2-model");
    assert!(amber(&screen) > 4000);
    // Regions are RALU's, a negative prompt true guidance's, of which this model has 3.
    for key in ["shift+a"; 3] {
        window.key(key);
    }
    window.key("b");
    window.wait_for_title("ralu: error: regions are RALU's", SOON);
    window.key("shift+k");
    screen.shoot("disabled-3-plain");
    for key in ["shift+k"; 4] {
        window.key(key);
    }
    window.key("n");
    window.wait_for_title("ralu: error: a negative prompt takes true guidance above 1", SOON);
    screen.shoot("disabled-4-unguided");
    window.key("k");
    window.key("n");
    window.type_text("blurry");
    window.key("Escape");
    screen.shoot("disabled-5-guided");
    window.close();
    let state = std::fs::read_to_string(folder.path().join("config/ralu/viewer.json")).unwrap();
    assert!(state.contains("blurry") && state.contains("\"true_cfg\": 1.5"), "{state}");
}
