//! LoRAs in the window: dropped, weighed, weighed by stage, removed; each time the picture is that of the command line.

use std::path::Path;

use image::RgbImage;

use super::screen::Screen;
use super::window::Window;
use super::{RUN, SOON, made_again, psnr, ralu, read_png, root};

const PROMPT: &str = "a red apple";
/// Next to drivers of their own for window and command line.
const CLOSE: f64 = 50.0;

/// What the command line draws with that LoRA, or without.
fn by_command(folder: &Path, model: &Path, lora: Option<&str>) -> RgbImage {
    let picture = folder.join("by-command.png");
    let mut command = ralu();
    command.args(["--quiet", "generate", PROMPT, "--no-tune", "--seed", "5", "--ralu", "4x"]);
    command.args(["--width", "128", "--height", "128", "--model"]).arg(model);
    command.args(lora.iter().flat_map(|lora| ["--lora", lora])).arg("-o").arg(&picture);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    read_png(&picture)
}

/// Waits for a run that has begun to end, and saves its picture: the `n`-th of this test.
fn saved(window: &mut Window, folder: &Path, n: usize) -> RgbImage {
    window.wait_for_title("RALU 4x: done", RUN);
    window.key("ctrl+s");
    window.wait_for_title("ralu: saved", SOON);
    let name = if n == 1 { "ralu-5.png".to_owned() } else { format!("ralu-5-{n}.png") };
    read_png(&folder.join(name))
}

#[track_caller]
fn is_close(what: &str, found: &RgbImage, expected: &RgbImage) {
    let found = psnr(found, expected);
    assert!(found >= CLOSE, "{what}: PSNR {found:.1} dB");
}

/// The middle of the handle of the one slider among the LoRAs, which has the only white edge there.
fn handle(screen: &RgbImage) -> (i32, i32) {
    let area = (14..190).flat_map(|x| (355..450).map(move |y| (x, y)));
    let white: Vec<(u32, u32)> =
        area.filter(|(x, y)| screen.get_pixel(*x, *y).0 == [255; 3]).collect();
    assert!(!white.is_empty(), "there is no slider");
    let mean = |values: Vec<u32>| values.iter().sum::<u32>() as i32 / values.len() as i32;
    (mean(white.iter().map(|at| at.0).collect()), mean(white.iter().map(|at| at.1).collect()))
}

/// What the title says of a run that is under way.
const RUNNING: [&str; 6] = ["starting", "stage 1", "stage 2", "stage 3", "loading", "preparing"];

#[test]
fn a_dropped_lora_is_drawn_with_as_its_weight_changes() {
    let screen = Screen::start(1180, 780);
    let folder = tempfile::tempdir().unwrap();
    let model = root().join("tests/fixtures/flux-a/model");
    let file = root().join("tests/fixtures/lora/flux-diffusers/lora.safetensors");
    let shown = file.to_str().unwrap();
    let mut window =
        Window::open(&screen, folder.path(), &["--model", model.to_str().unwrap(), PROMPT]);
    window.wait_for_title("ralu: model", SOON);
    // From 1024 x 1024.
    for key in ["shift+w", "shift+h"].repeat(6) {
        window.key(key);
    }
    window.drop_file(&file);
    window.wait_for_title("ralu: lora.safetensors: lora for", SOON);
    screen.shoot("lora-1-dropped");
    window.key("r");
    window.wait_for_titles(&RUNNING, RUN);
    let whole = saved(&mut window, folder.path(), 1);
    let base = by_command(folder.path(), &model, None);
    is_close("weight 1", &whole, &by_command(folder.path(), &model, Some(shown)));
    assert!(psnr(&whole, &base) < CLOSE, "the LoRA changes nothing");

    // Dragged to its left end; pictures are drawn by themselves.
    let handle = handle(&screen.picture());
    window.drag(handle, (4, handle.1));
    window.wait_for_titles(&RUNNING, RUN);
    let least = saved(&mut window, folder.path(), 2);
    screen.shoot("lora-2-least");
    is_close("-2", &least, &by_command(folder.path(), &model, Some(&format!("{shown}:-2"))));

    // By keys. The picture's settings have the weight.
    (0..25).for_each(|_| window.key("z"));
    window.wait_for_titles(&RUNNING, RUN);
    let half = saved(&mut window, folder.path(), 3);
    screen.shoot("lora-3-half");
    is_close("0.5", &half, &by_command(folder.path(), &model, Some(&format!("{shown}:0.5"))));
    is_close("0.5, again", &half, &made_again(&folder.path().join("ralu-5-3.png")));

    // The weight of stage 3 alone: stage 1 is kept.
    window.key("o");
    for key in ["j", "j", "shift+z", "shift+z", "shift+z"] {
        window.key(key);
    }
    window.wait_for_titles(&RUNNING, RUN);
    let late = saved(&mut window, folder.path(), 4);
    screen.shoot("lora-4-stages");
    let lora = format!("{shown}:0.5,0.5,0.2");
    is_close("stages", &late, &by_command(folder.path(), &model, Some(&lora)));
    is_close("stages, again", &late, &made_again(&folder.path().join("ralu-5-4.png")));
    assert!(late != half);

    // A file that is none for this model leaves everything as it is.
    let before = screen.timeline();
    window.drop_file(&root().join("tests/fixtures/lora/bad/nan.safetensors"));
    window.wait_for_title("ralu: error: ", SOON);
    screen.shoot("lora-5-bad");
    assert!(window.title().contains("nan.safetensors"), "{}", window.title());
    assert!(screen.timeline() == before, "it was drawn again");

    // Not drawn again by itself, if that is switched off.
    window.key("y");
    window.key("Delete");
    window.key("r");
    window.wait_for_titles(&RUNNING, RUN);
    let removed = saved(&mut window, folder.path(), 5);
    is_close("removed", &removed, &base);
    window.key("shift+z");
    window.wait_for_title("ralu: error: there is no LoRA", SOON);
    window.close();

    // It is gone at the next start, too; a picture brings its own.
    let third = folder.path().join("ralu-5-4.png");
    let mut window = Window::open(&screen, folder.path(), &["--from", third.to_str().unwrap()]);
    window.wait_for_title("the request of", SOON);
    window.key("r");
    window.wait_for_titles(&RUNNING, RUN);
    let again = saved(&mut window, folder.path(), 6);
    is_close("from the picture", &again, &late);
    window.close();
}

/// Changes that are merged into weights: the model is opened again for each weight.
#[test]
fn merged_changes_are_drawn_with_as_their_weight_changes() {
    let screen = Screen::start(1180, 780);
    let folder = tempfile::tempdir().unwrap();
    let model = root().join("tests/fixtures/flux-a/model");
    let file = root().join("tests/fixtures/lora/flux-diff/lora.safetensors");
    let shown = file.to_str().unwrap();
    let words = ["--model", model.to_str().unwrap(), "--lora", &format!("{shown}:0.3"), PROMPT];
    let mut window = Window::open(&screen, folder.path(), &words);
    window.wait_for_title("ralu: model", SOON);
    for key in ["shift+w", "shift+h"].repeat(6) {
        window.key(key);
    }
    // Its stages have one weight.
    window.key("o");
    window.wait_for_title("ralu: error: the changes of this LoRA are merged", SOON);
    window.key("r");
    window.wait_for_titles(&RUNNING, RUN);
    window.wait_for_title("RALU 4x: done", RUN);
    // To nothing and back: 0 leaves it out.
    for (n, key, weight) in [(1, "shift+z", "0"), (2, "z", "0.3")] {
        (0..3).for_each(|_| window.key(key));
        window.wait_for_titles(&RUNNING, RUN);
        let picture = saved(&mut window, folder.path(), n);
        let lora = format!("{shown}:{weight}");
        is_close(weight, &picture, &by_command(folder.path(), &model, Some(&lora)));
    }
    window.close();
}
