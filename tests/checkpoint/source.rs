//! Folders and blobs: what is wrong with them is said, and ranges of them are read.

use ralu::checkpoint::source::{Folder, Memory, Source, SourceError};

use crate::folders::assert_mentions;

#[test]
fn folder_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let message = Folder::open(dir.path().join("nowhere")).unwrap_err().to_string();
    assert_mentions(&message, &["nowhere", "no such folder", "model_index.json"]);

    std::fs::write(dir.path().join("file"), "x").unwrap();
    assert!(matches!(Folder::open(dir.path().join("file")), Err(SourceError::NotAFolder { .. })));

    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::fs::write(dir.path().join("sub/empty"), "").unwrap();
    std::fs::write(dir.path().join("sub/latin1"), [b'a', 0xe9]).unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    assert!(matches!(folder.blob("none").err(), Some(SourceError::MissingFile { .. })));
    assert!(matches!(folder.blob("file/none").err(), Some(SourceError::MissingFile { .. })));
    assert!(matches!(folder.blob("sub").err(), Some(SourceError::NotAFile { .. })));
    assert!(matches!(folder.blob("sub/empty").err(), Some(SourceError::Empty { .. })));
    assert!(matches!(folder.text("sub/latin1"), Err(SourceError::NotText { offset: 1, .. })));
    assert_eq!(folder.text("none").unwrap(), None);
    assert_eq!(folder.list("sub").unwrap(), ["empty", "latin1"]);
    assert_eq!(folder.list("").unwrap(), ["file", "sub"]);
    assert!(folder.list("none").unwrap().is_empty());
    assert!(folder.exists("file") && !folder.exists("sub"));
    for path in ["../x", "/etc/passwd", "a/../../x", "a\\b", "C:x", "a\0b"] {
        assert!(matches!(folder.text(path), Err(SourceError::BadPath { .. })), "{path:?}");
        assert!(!folder.exists(path));
    }
}

#[test]
fn blobs_read_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..40_000u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(dir.path().join("f"), &bytes).unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    let memory = Memory::new("m").with("f", &bytes);
    for source in [&folder as &dyn Source, &memory] {
        let blob = source.blob("f").unwrap();
        assert_eq!(blob.len(), 40_000);
        assert!(!blob.is_empty());
        assert_eq!(*blob.bytes(5_000..17_000).unwrap(), bytes[5_000..17_000]);
        assert_eq!(*blob.bytes(0..40_000).unwrap(), bytes[..]);
        assert!(blob.bytes(7..7).unwrap().is_empty());
        let backwards = std::ops::Range { start: 2, end: 1 };
        for range in [0..40_001, u64::MAX - 1..u64::MAX, backwards] {
            assert!(matches!(blob.bytes(range), Err(SourceError::OutOfRange { len: 40_000, .. })));
        }
    }
}
