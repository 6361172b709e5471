//! A folder of kernels: those to compile, and what is said of them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Result;
use crate::fxc::Fxc;

/// A program that one or several pipelines have.
struct Source {
    /// The first of those pipelines, `number-kernel`.
    name: String,
    kernel: String,
    entry: String,
    text: String,
}

/// Compiles the files of a folder, each text once, or `most` of each kernel, evenly from the longest to the shortest: which
/// take longest cannot be seen, as trip counts of loops do it. An error if one is refused or takes over `limit` seconds.
pub fn run(folder: &Path, most: &str, limit: &str) -> Result<()> {
    let limit: f64 = limit.parse()?;
    let compiler = Fxc::open()?;
    let (all, pipelines) = sources(folder)?;
    let mut kernels = BTreeMap::<&str, Vec<&Source>>::new();
    for source in &all {
        kernels.entry(&source.kernel).or_default().push(source);
    }
    let most = if most == "all" { usize::MAX } else { most.parse()? };
    let mut chosen = Vec::new();
    for sources in kernels.values_mut() {
        sources.sort_by_key(|source| (Reverse(source.text.len()), &source.name));
        let n = most.min(sources.len());
        chosen.extend((0..n).map(|i| sources[i * (sources.len() - 1) / (n - 1).max(1)]));
    }

    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(source) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = compiler.compile(&source.text, &source.entry);
                    results.lock().unwrap().push((*source, result));
                }
            });
        }
    });
    let results = results.into_inner().unwrap();

    let mut refused = 0;
    let mut times = BTreeMap::<&str, Vec<(f64, &str)>>::new();
    for (source, (seconds, outcome)) in &results {
        times.entry(&source.kernel).or_default().push((*seconds, &source.name));
        if let Err(message) = outcome {
            println!("{}: {message}", source.name);
            refused += 1;
        }
        if *seconds > limit {
            println!("{}: {seconds:.1} s", source.name);
        }
    }
    println!("{:<28} {:>5} {:>8} {:>8}", "kernel", "texts", "mean s", "most s");
    let (mut slowest, mut slow) = ((0.0, ""), 0);
    for (kernel, times) in &mut times {
        times.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mean = times.iter().map(|(seconds, _)| seconds).sum::<f64>() / times.len() as f64;
        let (most, name) = times[0];
        println!("{kernel:<28} {:>5} {mean:>8.2} {most:>8.2}  {name}", times.len());
        if most > slowest.0 {
            slowest = times[0];
        }
        slow += times.iter().filter(|(seconds, _)| *seconds > limit).count();
    }
    println!(
        "note: {refused} of {} texts ({pipelines} pipelines) refused, {slow} over {limit} s; the slowest took {:.1} s ({})",
        results.len(),
        slowest.0,
        slowest.1
    );
    if results.len() < all.len() {
        println!("part: {} of {} texts, at most {most} of each kernel", results.len(), all.len());
    }
    match (results.len(), refused + slow) {
        (0, _) => Err(format!("{} is empty", folder.display()).into()),
        (_, 0) => Ok(()),
        _ => Err(format!("FXC refuses {refused} texts and takes over {limit} s for {slow}").into()),
    }
}

/// The texts of a folder, each once, and the number of its files. Their first lines are comments that name the entry point.
fn sources(folder: &Path) -> Result<(Vec<Source>, usize)> {
    let mut paths = Vec::new();
    for file in std::fs::read_dir(folder)? {
        paths.push(file?.path());
    }
    paths.sort();
    let (mut seen, mut sources) = (HashSet::new(), Vec::new());
    for path in &paths {
        let text = std::fs::read_to_string(path)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !seen.insert(text.clone()) {
            continue;
        }
        let entry = text.lines().next().and_then(|line| line.strip_prefix("// "));
        let entry = entry.ok_or_else(|| format!("{}: no entry point", path.display()))?.to_owned();
        let kernel = name.split_once('-').map_or("", |(_, kernel)| kernel).to_owned();
        sources.push(Source { name, kernel, entry, text });
    }
    Ok((sources, paths.len()))
}
