//! Model files that change while they are open: an error, never a signal and never a mixture of two models.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pollster::block_on;
use ralu::Run;
use ralu::checkpoint::source::{Folder, Source, SourceError};
use ralu::pipeline::{Event, Options, Pipeline, RaluChoice, Request};

const WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";

/// A change of a file: its name, the file's length afterwards, and what makes it.
type Change = (&'static str, u64, fn(&Path));

/// A file of `len` bytes that was written an hour ago.
fn old_file(dir: &Path, len: usize) -> PathBuf {
    let path = dir.join("weights");
    fs::write(&path, vec![1; len]).unwrap();
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(&path).unwrap().set_modified(hour_ago).unwrap();
    path
}

#[test]
fn a_blob_tells_that_its_file_was_written_into() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    let changes: [Change; 4] = [
        ("shortened", 10_000, |path| {
            fs::File::options().write(true).open(path).unwrap().set_len(10_000).unwrap();
        }),
        ("emptied", 0, |path| fs::write(path, []).unwrap()),
        ("overwritten", 40_000, |path| fs::write(path, vec![2; 40_000]).unwrap()),
        ("extended", 40_001, |path| fs::write(path, vec![1; 40_001]).unwrap()),
    ];
    for (name, len, change) in changes {
        let path = old_file(dir.path(), 40_000);
        let blob = folder.blob("weights").unwrap();
        assert_eq!(blob.bytes(30_000..40_000).unwrap().len(), 10_000);
        change(&path);
        // What lies before the new end, too: it may be another model's by now.
        for range in [0..10, 30_000..40_000] {
            match blob.bytes(range) {
                Err(SourceError::Changed { before: 40_000, now, .. }) => assert_eq!(now, len),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_file_may_be_replaced_while_it_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    let path = old_file(dir.path(), 1_000);
    let blob = folder.blob("weights").unwrap();
    fs::write(dir.path().join("new"), vec![2; 500]).unwrap();
    fs::rename(dir.path().join("new"), path).unwrap();
    assert_eq!(*blob.bytes(0..1_000).unwrap(), [1; 1_000]);
    assert_eq!(*folder.blob("weights").unwrap().bytes(0..500).unwrap(), [2; 500]);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

fn start(pipeline: &Pipeline) -> Run {
    let mut request = Request::new("a fox").size(64, 64).ralu(RaluChoice::Off).seed(1);
    request.steps = Some(1);
    request.max_sequence_length = Some(16);
    pipeline.start(request).unwrap()
}

/// The error that ends a run.
fn failure(run: &mut Run) -> String {
    loop {
        match block_on(run.next()) {
            Ok(Some(Event::Image { .. })) => panic!("a picture of a model that has changed"),
            Ok(Some(_)) => {}
            Ok(None) => panic!("no error"),
            Err(error) => return error.to_string(),
        }
    }
}

#[test]
fn a_run_whose_model_changes_ends_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-flux");
    let weights = dir.path().join(WEIGHTS);
    for len in [1 << 20, 0, u64::MAX] {
        copy(&bundled, dir.path());
        let folder = Box::new(Folder::open(dir.path()).unwrap());
        let pipeline = Pipeline::open(crate::common::gpu(), folder, Options::default()).unwrap();
        let file = fs::File::options().write(true).open(&weights).unwrap();
        match len {
            // As long as before, and written a moment later.
            u64::MAX => file.set_modified(SystemTime::now() + Duration::from_secs(1)).unwrap(),
            len => file.set_len(len).unwrap(),
        }
        let message = failure(&mut start(&pipeline));
        assert!(message.contains(WEIGHTS) && message.contains("changed while"), "{message}");
        // It stays an error, however often it is tried.
        let message = failure(&mut start(&pipeline));
        assert!(message.contains("changed while"), "{message}");
    }
}
