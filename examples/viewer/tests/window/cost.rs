//! What watching costs: the same pictures by the command line and in the window, taking turns, and how long the window's
//! frames take meanwhile. Not among the tests, as busy machines tell nothing:
//!
//! `cargo test --release -p ralu-viewer --no-default-features -- --ignored --nocapture cost`

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::screen::Screen;
use super::window::{Window, cpu_seconds};
use super::{RUN, SOON, ralu};

const ROUNDS: usize = 3;
const PROMPT: &str = "a fox on a purple background";

/// Wall and processor seconds.
type Cost = [f64; 2];

/// A picture by the command line, from its first step on.
fn by_command(cache: &Path, arguments: &[&str]) -> Cost {
    let mut command = ralu();
    command.args(["--quiet", "generate", PROMPT, "--seed", "5", "--events", "json"]);
    command.args(["--width", "256", "--height", "256"]).args(arguments);
    command.arg("-o").arg(cache.join("picture.png"));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let is = |line: &String, kind: &str| line.contains(&format!("\"event\":\"{kind}\""));
    lines.find(|line| is(line, "stage")).expect("a stage begins");
    let (begun, cpu) = (std::time::Instant::now(), cpu_seconds(child.id()));
    lines.find(|line| is(line, "image")).expect("a picture");
    let cost = [begun.elapsed().as_secs_f64(), cpu_seconds(child.id()) - cpu];
    lines.for_each(drop);
    assert!(child.wait().unwrap().success());
    cost
}

/// A picture in the window, from its first step on.
fn in_window(window: &mut Window, name: &str) -> Cost {
    window.key("r");
    // One is shown as done from before.
    window.wait_for_title(&format!("{name}: "), RUN);
    window.wait_for_titles(&["step 0 of", "step 1 of"], RUN);
    let (begun, cpu) = (std::time::Instant::now(), window.cpu_seconds());
    window.wait_for_title(&format!("{name}: done"), RUN);
    [begun.elapsed().as_secs_f64(), window.cpu_seconds() - cpu]
}

fn median(costs: &[Cost]) -> Cost {
    std::array::from_fn(|i| {
        let mut values: Vec<f64> = costs.iter().map(|cost| cost[i]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    })
}

#[test]
#[ignore = "measures: needs a quiet machine, and minutes"]
fn cost_of_watching() {
    let screen = Screen::start(1180, 780);
    let folder = tempfile::tempdir().unwrap();
    for (name, keys, arguments) in [
        ("RALU 4x", vec![], vec!["--ralu", "4x"]),
        ("plain, 28 steps", vec!["shift+a"; 3], vec!["--ralu", "off", "--steps", "28"]),
    ] {
        let mut window = Window::open(&screen, folder.path(), &[PROMPT]);
        window.wait_for_title("ralu: tiny-flux", SOON);
        keys.iter().for_each(|key| window.key(key));
        if name.starts_with("plain") {
            (28..50).for_each(|_| window.key("shift+s"));
        }
        // Weights and kernels come before the first.
        in_window(&mut window, name);
        by_command(folder.path(), &arguments);
        let (mut alone, mut watched) = (vec![], vec![]);
        for _ in 0..ROUNDS {
            watched.push(in_window(&mut window, name));
            alone.push(by_command(folder.path(), &arguments));
        }
        let (a, w) = (median(&alone), median(&watched));
        println!(
            "{name}: alone {:.2} s ({:.2} s of processor), watched {:.2} s ({:.2} s): {:+.1} % and {:+.1} %",
            a[0],
            a[1],
            w[0],
            w[1],
            100.0 * (w[0] / a[0] - 1.0),
            100.0 * (w[1] / a[1] - 1.0)
        );
        println!("  alone {alone:.2?}\n  watched {watched:.2?}");
        // Frames drawn all the time, as on a GPU.
        window.key("t");
        let cost = in_window(&mut window, name);
        window.key("t");
        window.wait_for_title("frames", SOON);
        println!("  drawn all the time {cost:.2?}: {}", window.title());
        std::thread::sleep(Duration::from_millis(300));
        window.close();
    }
}
