//! Files of changes to a model.

use std::sync::{Arc, OnceLock};

use arbitrary::Unstructured;
use ralu::models::adapters::{Lora, LoraWeight};
use ralu::models::files::{ModelFiles, ModelPaths};

use super::check::{clean, keeps_its_word, message};
use super::edits::edited;
use super::limits::bounded;
use super::model::{File, MEMORY, Model, fixture, fixtures, weights};

const FILE: &str = "cats.safetensors";

/// Files whose headers are changed, in the forms that programs write, and whether they are for SD3.
const CASES: [(&str, bool); 8] = [
    ("flux-kohya", false),
    ("flux-metadata", false),
    ("flux-xlabs", false),
    ("flux-onetrainer-dora", false),
    ("flux-lokr", false),
    ("flux-loha", false),
    ("flux-diff", false),
    ("sd35m-kohya", true),
];

/// Headers, and how many bytes follow each.
fn headers() -> &'static [(String, u64)] {
    static HEADERS: OnceLock<Vec<(String, u64)>> = OnceLock::new();
    HEADERS.get_or_init(|| {
        let header = |(name, _): &(&str, bool)| {
            let path = fixture("lora").join(name).join("lora.safetensors");
            let file = std::fs::read(path).expect("tests/fixtures is there");
            let length =
                file.first_chunk().map_or(0, |length| u64::from_le_bytes(*length)) as usize;
            let header = std::str::from_utf8(&file[8..8 + length]).expect("fixtures are UTF-8");
            (header.to_owned(), (file.len() - 8 - length) as u64)
        };
        CASES.iter().map(header).collect()
    })
}

/// The first byte says what the rest is: a weight as users spell it, a file, or changes in the header of one whose numbers are
/// zeros. The second is of the model.
pub fn check(input: &[u8]) {
    let Some(([what, number], rest)) = input.split_first_chunk::<2>().map(|(a, b)| (*a, b)) else {
        return;
    };
    match what % 3 {
        0 => {
            if let Ok(text) = std::str::from_utf8(rest)
                && let Some(lora) = clean(text.parse::<Lora>())
            {
                assert!(lora.weight.stages().iter().all(|weight| weight.is_finite()), "{lora:?}");
                let again = format!("{}:{}", lora.file, lora.weight).parse::<Lora>();
                assert_eq!(again.expect("it was just read"), lora);
            }
        }
        1 => open(number % 2 == 1, File::Weights { head: rest.into(), zeros: 1 << 12 }),
        _ => {
            let case = usize::from(number) % CASES.len();
            let (header, zeros) = &headers()[case];
            if let Ok(header) = edited(header, &mut Unstructured::new(rest)) {
                open(CASES[case].1, weights(&header, *zeros));
            }
        }
    }
}

/// What opens has reports without control characters, and a plan.
fn open(is_sd3: bool, file: File) {
    let [sd3, _, flux] = fixtures() else { return };
    let model = if is_sd3 { sd3 } else { flux };
    let model: Model = model.clone().with_file(FILE, file);
    let length = model.length();
    let paths = ModelPaths::default().with(|paths| {
        let weight = LoraWeight::Stages([0.0, 0.5, 1.0]);
        paths.loras = vec![Lora { file: FILE.into(), weight, sha256: None }];
    });
    bounded(MEMORY, length, || {
        let opened = ModelFiles::open(Arc::new(model.clone()), &paths);
        let Some(files) = clean(opened) else { return };
        for report in files.adapters() {
            message(report);
            report.warnings().iter().for_each(|warning| message(warning));
        }
        keeps_its_word(&files);
    });
}
