//! Files of pictures: names, contents, and that nothing is replaced or half written.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use ralu::pipeline::png_file;
use ralu::pipeline::saved::Maker;
use ralu::{Event, Picture, Precision};
use ralu_host::pictures::{Names, PictureOptions, ResultKind, Results, read_request, write_new};
use ralu_host::{Device, End, Error, Session};

use crate::common::{choice, gpu, pipeline, request};

#[test]
fn a_series_is_numbered_and_a_single_picture_is_not() {
    let names = |count| Names {
        picture: Some("folder/fox.png".into()),
        tensors: Some("fox.safetensors".into()),
        stages: Some("stages".into()),
        first_seed: u64::MAX,
        count,
    };
    let estimate = ralu::pipeline::PictureKind::Estimate;
    let (one, series) = (names(1), names(3));
    assert_eq!(one.picture(0), Path::new("folder/fox.png"));
    assert_eq!(series.picture(2), Path::new("folder/fox-2.png"));
    assert_eq!(series.tensors(0).as_deref(), Some(Path::new("fox-0.safetensors")));
    let stage = |names: &Names| names.stage_picture(0, 2, estimate).expect("a folder");
    assert_eq!(stage(&one), Path::new("stages/stage2-estimate.png"));
    assert_eq!(stage(&series), Path::new("stages/0-stage2-estimate.png"));
    // Without a name each has its seed, and the one after the largest is 0.
    let unnamed = Names { picture: None, tensors: None, stages: None, ..names(2) };
    assert_eq!(unnamed.picture(0), Path::new("ralu-18446744073709551615.png"));
    assert_eq!(unnamed.picture(1), Path::new("ralu-0.png"));
    assert!(unnamed.tensors(0).is_none() && unnamed.stage_picture(0, 1, estimate).is_none());
}

#[test]
fn new_files_replace_none_and_leave_nothing_half_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |bytes: &[u8]| write_new(folder.path(), "fox", bytes).expect("written");
    let paths = [write(b"one"), write(b"two"), write(b"three")];
    assert_eq!(paths.map(|path| fs::read(path).expect("a file")), [&b"one"[..], b"two", b"three"]);
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("a file").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["fox-2.png", "fox-3.png", "fox.png"]);
    let error = write_new(&folder.path().join("none"), "fox", b"").expect_err("no folder");
    assert!(matches!(error, Error::File { .. }), "{error}");
}

#[test]
fn what_is_no_picture_of_ours_is_said_to_be_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let picture = Picture { width: 2, height: 1, rgb: vec![0; 6] };
    fs::write(path("plain.png"), png_file::encode(&picture, None).expect("a PNG"))
        .expect("written");
    fs::write(path("text.png"), "a fox").expect("written");
    for (name, words) in [
        ("plain.png", "carries no request"),
        ("text.png", "not a readable PNG"),
        ("none.png", "none.png cannot be opened"),
        (".", "this is a folder; expected a picture's file"),
    ] {
        let error = read_request(&path(name)).expect_err(name).to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// What a run writes is what its events hold, and its request makes it again.
#[test]
fn files_of_a_run_hold_its_events() {
    let request = request().with(|request| {
        request.count = Some(2);
        request.stage_pictures = true;
        request.collect_tensors = true;
    });
    let mut session = Session::new(pipeline(gpu()));
    let pipeline = session.pipeline().expect("open");
    let settings = pipeline.settings(&request).expect("a sensible request");
    let maker = Maker {
        model: "tiny-flux",
        model_hash: None,
        model_parts: None,
        adapter: "test",
        has_guidance: true,
        precision: Precision::default(),
        quantise: None,
        given: vec![],
    };
    let folder = tempfile::tempdir().expect("a folder");
    let names = Names {
        picture: Some(folder.path().join("fox.png")),
        tensors: Some(folder.path().join("fox.safetensors")),
        stages: Some(folder.path().to_path_buf()),
        first_seed: settings.seed,
        count: settings.count,
    };
    let options = PictureOptions::default();
    let results = Results { names: &names, settings: &settings, maker: &maker, stages: 3, options };
    let (mut drawn, mut order) = (vec![], vec![]);
    let mut device = Device::adapter(choice(), None);
    let outcome = session.draw(
        &mut device,
        &request,
        || true,
        |_, event| {
            let written = results.write(&event, |kind, path, bytes| {
                order.push(kind);
                fs::write(path, bytes).map_err(|error| Error::File {
                    path: path.to_path_buf(),
                    reason: error.to_string(),
                })
            })?;
            if let Event::Image { image, picture, .. } = event {
                assert_eq!(written.picture, Some(names.picture(image)));
                assert_eq!(written.tensors, names.tensors(image));
                drawn.push(picture);
            }
            Ok::<(), Error>(())
        },
    );
    assert!(matches!(outcome.end, End::Finished), "{outcome:?}");
    // A program that waits for the picture finds everything.
    let per_picture = order.len() / 2;
    assert_eq!(order[per_picture - 1], ResultKind::Picture);
    assert_eq!(order.iter().filter(|kind| **kind == ResultKind::Picture).count(), 2);
    for (i, picture) in drawn.iter().enumerate() {
        let path = names.picture(i);
        let bytes = fs::read(&path).expect("a picture");
        let mut reader = png::Decoder::new(Cursor::new(&bytes)).read_info().expect("a PNG");
        let mut rgb = vec![0; reader.output_buffer_size().expect("a size")];
        reader.next_frame(&mut rgb).expect("pixels");
        assert!(rgb == picture.rgb, "other pixels in {}", path.display());
        let again = read_request(&path).expect("a request").request().expect("a request");
        assert_eq!((again.seed, again.prompt), (3 + i as u64, request.prompt.clone()));
        let tensors = fs::read(names.tensors(i).expect("a name")).expect("tensors");
        assert!(!tensors.is_empty());
    }
    let last = folder.path().join("1-stage3-estimate.png");
    assert!(last.is_file(), "the last stage's estimate is the picture");
}
