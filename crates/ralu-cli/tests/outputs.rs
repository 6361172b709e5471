//! Where results go: devices and pipes, links, names that cannot be written, results that would replace each other.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command::{fails, on_adapter, stderr, succeeds};
use crate::picture::{SMALL, bytes, copied_model, folder, names, plain};

/// A run that fails before anything is loaded, and leaves nothing.
#[track_caller]
fn refused(command: &mut Command, code: i32, parts: &[&str]) {
    let message = fails(command, code, parts);
    assert!(!message.contains("loading"), "{message}");
}

#[test]
fn names_that_cannot_be_written_are_refused_before_the_run() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let long = |letters: usize, end: &str| path(&("x".repeat(letters) + end));
    // 255 bytes is the limit of the file systems that people have.
    refused(&mut plain("a fox", &long(252, ".png")), 1, &["the picture", "xxx.png"]);
    // Only the last numbered one is too long.
    refused(plain("a fox", &long(249, ".png")).args(["--count", "11"]), 1, &["xxx-10.png"]);
    let with = |option: &str, file: &Path| {
        let mut command = plain("a fox", &path("a.png"));
        command.arg(option).arg(file);
        command
    };
    refused(&mut with("--save-tensors", &long(244, ".safetensors")), 1, &["the tensors"]);
    refused(&mut with("--stages", &long(256, "")), 1, &["stage pictures"]);
    let mut trace = plain("a fox", &path("a.png"));
    refused(trace.arg(format!("--profile={}", long(252, ".json").display())), 1, &["the trace"]);
    refused(&mut plain("a fox", &path("a.png/")), 1, &["folder"]);
    assert_eq!(names(folder.path()), [""; 0]);

    // Something else has one of the names.
    fs::create_dir(path("a-1.png")).expect("a folder");
    refused(plain("a fox", &path("a.png")).args(["--count", "3"]), 1, &["a-1.png", "folder"]);
    fs::create_dir_all(path("stages/stage1-estimate.png")).expect("a folder");
    refused(&mut with("--stages", &path("stages")), 1, &["stage1-estimate.png", "folder"]);
    fs::write(path("kept.png"), "").expect("a file");
    let mut rights = fs::metadata(path("kept.png")).expect("a file").permissions();
    rights.set_readonly(true);
    fs::set_permissions(path("kept.png"), rights).expect("rights");
    refused(&mut plain("a fox", &path("kept.png")), 1, &["kept.png", "write-protected"]);
}

#[test]
fn results_do_not_replace_each_other_nor_what_is_read() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let with = |output: &str, options: &[&str]| {
        let mut command = plain("a fox", &path(output));
        command.args(options).current_dir(folder.path());
        command
    };
    let tensors = ["--save-tensors", "same.png"];
    refused(&mut with("same.png", &tensors), 2, &["same.png", "the picture", "the tensors"]);
    // However it is spelled.
    refused(&mut with("same.png", &["--save-tensors", "./same.png"]), 2, &["same.png"]);
    refused(&mut with("same.png", &["--profile=same.png"]), 2, &["the picture", "the trace"]);
    fs::create_dir(path("stages")).expect("a folder");
    let stages = ["--stages", "stages"];
    refused(&mut with("stages/stage1-estimate.png", &stages), 2, &["the stage pictures"]);
    refused(&mut with("new/a.png", &["--stages", "new/stages"]), 1, &["does not exist"]);
    assert_eq!(names(folder.path()), ["stages"]);

    succeeds(&mut with("a.png", &["--save-tensors", "a.safetensors"]));
    let (picture, given) = (bytes(&path("a.png")), bytes(&path("a.safetensors")));
    let mut from = on_adapter("generate");
    from.args(["--from", "a.png", "--seed", "2", "-o", "./a.png"]).current_dir(folder.path());
    refused(&mut from, 2, &["a.png", "--from"]);
    let over = ["--given", "a.safetensors", "--save-tensors", "a.safetensors"];
    refused(&mut with("b.png", &over), 2, &["a.safetensors", "--given"]);
    refused(&mut with("a.png", &["--regions", "a.png"]), 2, &["a.png", "--regions"]);
    assert_eq!((bytes(&path("a.png")), bytes(&path("a.safetensors"))), (picture, given));

    let model = copied_model(folder.path());
    let weights = model.join("vae/diffusion_pytorch_model.safetensors");
    let before = bytes(&weights);
    let mut own = on_adapter("generate");
    own.args(["a fox", "--steps", "1", "--model"]).arg(&model).args(SMALL);
    own.arg("-o").arg(path("b.png")).arg("--save-tensors").arg(&weights);
    refused(&mut own, 2, &["diffusion_pytorch_model.safetensors", "a file of the model"]);
    assert_eq!(bytes(&weights), before);
}

#[cfg(unix)]
mod unix {
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;

    fn make_pipe(path: &Path) {
        let made = Command::new("mkfifo").arg(path).status().expect("mkfifo runs");
        assert!(made.success());
    }

    fn is_pipe(path: &Path) -> bool {
        fs::symlink_metadata(path).expect("a file").file_type().is_fifo()
    }

    #[test]
    fn a_pipe_is_written_into_and_stays_one() {
        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        succeeds(plain("a fox", &path("a.png")).arg("--save-tensors").arg(path("a.safetensors")));
        for name in ["pipe.png", "pipe.safetensors"] {
            make_pipe(&path(name));
        }
        let read = |path: PathBuf| {
            std::thread::spawn(move || {
                let mut bytes = vec![];
                File::open(path).and_then(|mut pipe| pipe.read_to_end(&mut bytes)).expect("bytes");
                bytes
            })
        };
        let readers = ["pipe.png", "pipe.safetensors"].map(|name| read(path(name)));
        let mut command = plain("a fox", &path("pipe.png"));
        succeeds(command.arg("--save-tensors").arg(path("pipe.safetensors")));
        let [png, tensors] = readers.map(|reader| reader.join().expect("a reader"));
        assert!(png == bytes(&path("a.png")) && tensors == bytes(&path("a.safetensors")));
        assert!(is_pipe(&path("pipe.png")) && is_pipe(&path("pipe.safetensors")));

        let mut both = plain("a fox", &path("pipe.png"));
        refused(both.arg("--save-tensors").arg(path("pipe.png")), 2, &["pipe.png"]);
    }

    #[test]
    fn a_device_is_written_into_and_stays_one() {
        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        // By a link: as root, a fault would replace the machine's own.
        symlink("/dev/null", path("null")).expect("a link");
        let mut command = plain("a fox", &path("a.png"));
        succeeds(
            command.arg("--save-tensors").arg(path("null")).arg("--stages").arg(path("stages")),
        );
        assert!(fs::metadata(path("null")).expect("a device").file_type().is_char_device());
        assert!(fs::symlink_metadata(path("null")).expect("a link").is_symlink());

        let mut tensors = plain("a fox", &path("b.png"));
        let tensors = succeeds(tensors.args(["--save-tensors", "/dev/stdout"]));
        assert!(tensors.stdout.len() > 1000 && tensors.stdout.ends_with(b"b.png\n"));
        let out = File::create(path("out")).expect("a file");
        let mut command = plain("a fox", &path("b.png"));
        command.args(["--save-tensors", "/dev/stdout"]).stdout(out);
        let output = command.spawn().and_then(|run| run.wait_with_output()).expect("an end");
        assert_eq!((output.status.code(), bytes(&path("out")).len()), (Some(1), 0));

        let _socket = UnixListener::bind(path("socket.png")).expect("a socket");
        refused(&mut plain("a fox", &path("socket.png")), 1, &["socket.png", "a socket"]);
    }

    #[test]
    fn links_stay_and_what_they_lead_to_is_written() {
        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("far")).expect("a folder");
        symlink("far/real.png", path("link.png")).expect("a link");
        // There is nothing yet where it leads.
        succeeds(&mut plain("a fox", &path("link.png")));
        let first = bytes(&path("far/real.png"));
        fs::set_permissions(path("far/real.png"), PermissionsExt::from_mode(0o640))
            .expect("rights");
        succeeds(&mut plain("a dog", &path("link.png")));
        assert!(fs::symlink_metadata(path("link.png")).expect("a link").is_symlink());
        assert_ne!(bytes(&path("far/real.png")), first);
        let mode = fs::metadata(path("far/real.png")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(names(&path("far")), ["real.png"]);

        let mut both = plain("a fox", &path("link.png"));
        refused(both.arg("--save-tensors").arg(path("far/real.png")), 2, &["real.png"]);
        symlink("no/such.png", path("lost.png")).expect("a link");
        refused(&mut plain("a fox", &path("lost.png")), 1, &["does not exist"]);
        symlink("loop.png", path("loop.png")).expect("a link");
        refused(&mut plain("a fox", &path("loop.png")), 1, &["loop.png"]);
    }

    #[test]
    fn a_name_that_is_no_text_is_kept_and_numbered() {
        let folder = folder();
        let name = std::ffi::OsStr::from_bytes(b"f\xe9.png");
        // Some systems have none.
        if fs::write(folder.path().join(name), "").is_err() {
            return;
        }
        succeeds(plain("a fox", &folder.path().join(name)).args(["--count", "2"]));
        for number in [b'0', b'1'] {
            let name = [b"f\xe9-".as_slice(), &[number], b".png"].concat();
            assert!(folder.path().join(std::ffi::OsStr::from_bytes(&name)).is_file());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_picture_that_finds_no_room_is_kept_elsewhere() {
        let folder = folder();
        symlink("/dev/full", folder.path().join("full.png")).expect("a link");
        let kept = folder.path().join("kept");
        fs::create_dir(&kept).expect("a folder");
        let mut command = plain("a fox", &folder.path().join("full.png"));
        let message = fails(command.env("TMPDIR", &kept), 1, &["full.png", "No space left"]);
        let names = names(&kept);
        let [name] = names.as_slice() else { panic!("{names:?}") };
        assert!(message.contains(name.as_str()), "{message}");
        succeeds(&mut plain("a fox", &folder.path().join("a.png")));
        assert_eq!(bytes(&kept.join(name)), bytes(&folder.path().join("a.png")));
    }

    #[test]
    fn a_cache_that_is_a_pipe_is_left_alone() {
        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        let run = |output: &str| {
            let mut command = plain("a fox", &path(output));
            let output = succeeds(command.arg("--cache-dir").arg(path("cache")));
            assert_eq!(stderr(&output).matches("warning:").count(), 0, "{}", stderr(&output));
        };
        run("a.png");
        // Not every driver gives its compiled pipelines.
        for name in names(&path("cache")) {
            fs::remove_file(path("cache").join(&name)).expect("removed");
            make_pipe(&path("cache").join(&name));
            run("b.png");
            assert!(is_pipe(&path("cache").join(&name)));
        }
    }
}
