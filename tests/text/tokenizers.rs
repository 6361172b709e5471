//! CLIP's and T5's tokenizers against transformers 5.23; their files in every state.

use ralu::checkpoint::source::{Memory, Source};
use ralu::text::*;

use crate::folders::{
    Lcg, assert_mentions, damage, edit, fixture, repository, text_files, tiny_flux,
};

/// Prompts, and what transformers makes of them with tiny-flux: CLIP ids up to the end mark, T5 ids without padding.
#[rustfmt::skip]
const GOLDEN: &[(&str, &[u32], &[u32])] = &[
    ("a cat and a pizza, green background", &[1505, 320, 764, 524, 320, 927, 267, 565, 520, 1506], &[3, 85, 7, 3, 143, 781, 17, 4, 1]),
    ("a blue car on a yellow background", &[1505, 320, 537, 652, 521, 320, 570, 520, 1506], &[3, 8, 45, 5, 3, 20, 4, 1]),
    ("a red apple on a blue background", &[1505, 320, 563, 743, 521, 320, 537, 520, 1506], &[3, 19, 81, 5, 3, 8, 4, 1]),
    ("", &[1505, 1506], &[1]),
    ("   ", &[1505, 1506], &[1]),
    ("A RED Apple, ON a Blue  BACKGROUND", &[1505, 320, 563, 743, 267, 521, 320, 537, 520, 1506], &[12, 1080, 1045, 1032, 1031, 426, 781, 944, 1041, 3, 51, 1080, 1029, 1028, 1030, 1038, 1034, 1045, 1042, 1048, 1041, 1031, 1]),
    ("café naïve Ångström", &[1505, 588, 69, 127, 358, 77, 64, 127, 107, 614, 127, 98, 77, 70, 675, 81, 127, 114, 332, 1506], &[1080, 1056, 1054, 1059, 2, 984, 1054, 2, 922, 1080, 2, 1067, 1060, 1072, 1073, 1071, 2, 1066, 1]),
    ("a cat 🐱 and 🎨👩\u{200d}👩\u{200d}👧", &[1505, 320, 764, 172, 253, 238, 365, 524, 172, 253, 236, 101, 172, 253, 239, 102, 158, 222, 235, 172, 253, 239, 102, 158, 222, 235, 172, 253, 239, 356, 1506], &[3, 85, 1080, 2, 7, 1080, 2, 1]),
    ("一只红色的猫在蓝色背景上", &[1505, 160, 116, 222, 161, 237, 103, 163, 118, 95, 164, 231, 110, 163, 248, 226, 163, 234, 104, 161, 250, 101, 164, 241, 251, 164, 231, 110, 164, 225, 234, 162, 247, 107, 160, 116, 488, 1506], &[1080, 2, 1]),
    ("don't we'll I've it's O'Neil's", &[1505, 67, 521, 6, 339, 86, 324, 6, 984, 328, 6, 614, 72, 339, 6, 338, 334, 262, 596, 758, 6, 338, 1506], &[1080, 1057, 882, 1013, 1073, 1080, 1076, 1058, 1013, 1065, 1065, 938, 1013, 922, 1080, 856, 1013, 1072, 944, 1013, 1041, 1058, 1062, 1]),
    ("x  y\u{9}\u{9}z\u{a}\u{a}w", &[1505, 343, 344, 345, 342, 1506], &[1080, 1077, 1009, 1080, 1079, 1080, 1076, 1]),
    ("1234567890 3.14 50%", &[1505, 272, 273, 274, 275, 276, 277, 278, 279, 280, 271, 274, 269, 272, 275, 276, 271, 260, 1506], &[1080, 1019, 1020, 1021, 1022, 1023, 1024, 1025, 1026, 1027, 1018, 1080, 1021, 782, 1019, 1022, 1080, 1023, 1018, 1011, 1]),
    ("!!!???...---", &[1505, 0, 0, 0, 30, 30, 30, 13, 13, 13, 12, 12, 268, 1506], &[1080, 783, 783, 783, 784, 784, 784, 782, 782, 782, 1016, 1016, 1016, 1]),
    ("a <|endoftext|> b", &[1505, 320, 1506, 321, 1506], &[3, 1080, 2, 827, 1057, 879, 1073, 832, 1073, 2, 959, 1]),
    ("a <|startoftext|> b <|STARTOFTEXT|>", &[1505, 320, 1505, 321, 1505, 1506], &[3, 1080, 2, 1072, 1073, 804, 879, 1073, 832, 1073, 2, 959, 1080, 2, 1046, 1047, 1028, 1045, 1047, 1042, 1033, 1047, 1032, 1]),
    ("</s> <pad> <unk> <extra_id_0>", &[1505, 27, 270, 338, 285, 283, 79, 811, 285, 283, 681, 330, 285, 283, 68, 87, 679, 320, 318, 72, 323, 318, 271, 285, 1506], &[1, 0, 2, 1080, 2, 832, 1073, 1071, 1054, 2, 1062, 1057, 2, 1018, 2, 1]),
    ("cafe\u{301} A\u{30a}ngstrom", &[1505, 588, 69, 127, 358, 127, 98, 77, 70, 675, 547, 332, 1506], &[1080, 1056, 1054, 1059, 2, 1080, 2, 1067, 1060, 1072, 1073, 1071, 1068, 1066, 1]),
    ("ﬁne ﬂow ½ ① Ⅳ", &[1505, 171, 105, 223, 667, 171, 105, 224, 78, 342, 126, 377, 158, 239, 510, 158, 227, 367, 1506], &[970, 850, 1058, 970, 864, 1080, 1019, 2, 1020, 1080, 1019, 938, 1049, 1]),
    ("\u{200b}zero\u{200d}width\u{feff}", &[1505, 158, 222, 489, 89, 656, 334, 158, 222, 491, 86, 72, 67, 786, 171, 119, 379, 1506], &[1080, 1079, 830, 1068, 2, 1076, 1062, 1057, 911, 1]),
    ("\u{0}\u{1}control\u{7f}", &[1505, 188, 445, 1353, 331, 477, 1506], &[1080, 2, 1056, 882, 1073, 1071, 880, 1]),
    ("a\u{a0}b\u{3000}c", &[1505, 320, 321, 322, 1506], &[3, 959, 1080, 1056, 1]),
    ("İstanbul ẞ ǅ", &[1505, 328, 136, 485, 675, 538, 630, 331, 127, 509, 131, 484, 1506], &[1080, 2, 1072, 1073, 1054, 1067, 1055, 1074, 1065, 1080, 2, 1080, 1031, 2, 1]),
    ("#version hello", &[1505, 258, 1484, 82, 1376, 895, 75, 334, 1506], &[1080, 2, 923, 1072, 1062, 882, 976, 825, 1068, 1]),
    ("under_score-dash/slash\\back", &[1505, 1494, 318, 82, 593, 324, 268, 735, 82, 327, 270, 82, 589, 82, 327, 315, 516, 330, 1506], &[753, 2, 1072, 1056, 1068, 899, 1016, 814, 1072, 1061, 1017, 1072, 858, 1072, 1061, 2, 1055, 790, 1]),
    ("▁meta▁space", &[1505, 158, 244, 479, 767, 83, 320, 158, 244, 479, 82, 79, 590, 1506], &[981, 1058, 1073, 1054, 997, 1069, 789, 1]),
    ("  lead and trail  ", &[1505, 544, 811, 524, 1349, 758, 1506], &[1080, 863, 792, 7, 1002, 1071, 1054, 1062, 1065, 1]),
    ("it's'S 'T", &[1505, 72, 339, 6, 338, 6, 338, 6, 339, 1506], &[1080, 856, 1013, 1072, 1013, 1046, 1080, 1013, 1047, 1]),
    ("a,b;c:d", &[1505, 320, 267, 321, 282, 322, 281, 323, 1506], &[3, 781, 1055, 785, 1056, 786, 1057, 1]),
];

/// The files CLIP has in the original FLUX.1 repositories.
fn without_clip_json() -> Memory {
    let mut files = text_files(&tiny_flux());
    assert!(files.remove("tokenizer/tokenizer.json"));
    files
}

fn padded(ids: &[u32], length: usize, pad: u32) -> Vec<u32> {
    let mut ids = ids.to_vec();
    ids.resize(length, pad);
    ids
}

#[test]
fn tokens_equal_those_of_transformers() {
    let folder = tiny_flux();
    let clip = ClipTokenizer::load(&folder, "tokenizer").unwrap();
    let clip_files = ClipTokenizer::load(&without_clip_json(), "tokenizer").unwrap();
    let t5 = T5Tokenizer::load(&folder, "tokenizer_2").unwrap();
    assert_eq!((clip.max_length(), clip_files.max_length()), (77, 77));
    for (prompt, clip_ids, t5_ids) in GOLDEN {
        let expected = padded(clip_ids, 77, 1506);
        assert_eq!(
            clip.encode(prompt).unwrap(),
            Encoded { ids: expected.clone(), real: clip_ids.len(), truncated: None },
            "{prompt:?}"
        );
        assert_eq!(
            clip_files.encode(prompt).unwrap().ids,
            expected,
            "{prompt:?} from vocab.json and merges.txt"
        );
        // One of the prompts is cut off here.
        assert_eq!(t5.encode(prompt, 24).unwrap().ids, padded(t5_ids, 24, 0), "{prompt:?}");
    }
}

#[test]
fn tokens_of_the_fixtures() {
    for name in ["flux-a", "flux-b"] {
        let read =
            |file: &str| std::fs::read(repository("tests/fixtures").join(name).join(file)).unwrap();
        let case: serde_json::Value = serde_json::from_slice(&read("case.json")).unwrap();
        let (prompt, length) =
            (case["prompt"].as_str().unwrap(), case["max_sequence_length"].as_u64().unwrap());
        let bytes = read("expected.safetensors");
        let expected = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let ids = |name: &str| -> Vec<u32> {
            let view = expected.tensor(name).unwrap();
            let size = view.data().len() / view.shape().iter().product::<usize>();
            view.data()
                .chunks(size)
                .map(|b| u32::from_le_bytes(b[..4].try_into().unwrap()))
                .collect()
        };
        let model = fixture(name);
        let clip = ClipTokenizer::load(&model, "tokenizer").unwrap();
        let t5 = T5Tokenizer::load(&model, "tokenizer_2").unwrap();
        assert_eq!(clip.encode(prompt).unwrap().ids, ids("clip_ids"));
        assert_eq!(t5.encode(prompt, length as usize).unwrap().ids, ids("t5_ids"));
        // transformers 5 splits at white space even if the file's own settings would not.
        assert_eq!(t5.encode("   ", 4).unwrap().ids, [1, 0, 0, 0]);
        assert_eq!(t5.encode("  lead ", 8).unwrap().ids, [3, 12, 4, 5, 9, 1, 0, 0]);
    }
}

#[test]
fn long_and_odd_prompts() {
    let folder = tiny_flux();
    let clip = ClipTokenizer::load(&folder, "tokenizer").unwrap();
    let t5 = T5Tokenizer::load(&folder, "tokenizer_2").unwrap();
    let start = std::time::Instant::now();
    for text in [
        "a red apple, ".repeat(7_700),
        "a".repeat(100_000),
        "猫".repeat(100_000),
        " ".repeat(100_000),
        "🐱".repeat(50_000),
    ] {
        let encoded = clip.encode(&text).unwrap();
        assert_eq!((encoded.ids.len(), encoded.ids[0], encoded.ids[76]), (77, 1505, 1506));
        let encoded = t5.encode(&text, 24).unwrap();
        assert_eq!(encoded.ids.len(), 24);
    }
    // Quadratic behaviour would take minutes.
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());

    let words = "cat ".repeat(100);
    let encoded = clip.encode(&words).unwrap();
    assert_eq!(encoded.truncated, Some(25));
    assert_eq!(encoded.ids, [&[1505][..], &[764; 75], &[1506]].concat());
    let encoded = t5.encode("blue ".repeat(30).trim(), 24).unwrap();
    assert_eq!((encoded.ids[22], encoded.ids[23], encoded.truncated), (8, 1, Some(7)));
    // Exactly full is not truncated.
    assert_eq!(clip.encode(&"cat ".repeat(75)).unwrap().truncated, None);
    assert_eq!(t5.encode("blue", 2).unwrap().ids, [8, 1]);
    let cut = Encoded { ids: vec![1], real: 1, truncated: Some(1) };
    assert_eq!(t5.encode("blue", 1).unwrap(), cut);
    assert!(matches!(t5.encode("blue", 0), Err(TokenError::Length { found: 0, least: 1 })));
}

#[test]
fn tokenizer_files_in_every_state() {
    let whole = text_files(&tiny_flux());
    // The length of a truncation that a file carries is not ours; its side is (tests/added_tokens.rs).
    for (dir, n) in [("tokenizer", 7), ("tokenizer_2", 9)] {
        let mut files = whole.clone();
        let path = format!("{dir}/tokenizer.json");
        let truncation = serde_json::json!({"direction": "Right", "max_length": n, "strategy": "LongestFirst", "stride": 0});
        edit(&mut files, &path, "truncation", Some(truncation));
        edit(&mut files, &path, "post_processor", None);
        let clip = ClipTokenizer::load(&files, "tokenizer").unwrap();
        let t5 = T5Tokenizer::load(&files, "tokenizer_2").unwrap();
        for (prompt, clip_ids, t5_ids) in GOLDEN {
            assert_eq!(clip.encode(prompt).unwrap().ids, padded(clip_ids, 77, 1506));
            assert_eq!(t5.encode(prompt, 24).unwrap().ids, padded(t5_ids, 24, 0));
        }
    }
    // The configuration files are a help, not a need.
    let mut files = whole.clone();
    for dir in ["tokenizer", "tokenizer_2"] {
        assert!(files.remove(&format!("{dir}/tokenizer_config.json")));
        assert!(files.remove(&format!("{dir}/special_tokens_map.json")));
    }
    let clip = ClipTokenizer::load(&files, "tokenizer").unwrap();
    assert_eq!(clip.encode("a cat").unwrap().ids, padded(&[1505, 320, 764], 77, 1506));
    assert_eq!(
        T5Tokenizer::load(&files, "tokenizer_2").unwrap().encode("", 3).unwrap().ids,
        [1, 0, 0]
    );

    clip.check_vocab(1507).unwrap();
    assert_mentions(&clip.check_vocab(1506).unwrap_err().to_string(), &["1506", "embeddings"]);

    // What a vocabulary lacks is added to it, as in transformers.
    let mut files = without_clip_json();
    edit(&mut files, "tokenizer/vocab.json", "<|endoftext|>", None);
    let clip = ClipTokenizer::load(&files, "tokenizer").unwrap();
    let ids = [1505, 320, 563, 1506, 743];
    assert_eq!(clip.encode("a red <|endoftext|> apple").unwrap().ids, padded(&ids, 77, 1506));

    let clip = |files: &Memory| ClipTokenizer::load(files, "tokenizer").err().unwrap().to_string();
    let path = "tokenizer/tokenizer_config.json";
    edit(&mut files, path, "eos_token", Some("".into()));
    assert_mentions(&clip(&files), &["model/tokenizer/vocab.json", "no token", "eos_token"]);
    let mut files = without_clip_json();
    edit(&mut files, "tokenizer/vocab.json", "cat</w>", Some((1u64 << 40).into()));
    assert_mentions(&clip(&files), &["vocab.json", "cat</w>"]);
    for (merges, parts) in
        [("#version: 0.2\na b c", ["line 2", "a b c"]), ("zz qq", ["qq", "out of vocabulary"])]
    {
        let files = without_clip_json().with("tokenizer/merges.txt", merges);
        assert_mentions(&clip(&files), &parts);
    }
    let mut files = without_clip_json();
    files.remove("tokenizer/merges.txt");
    assert_mentions(
        &clip(&files),
        &["model/tokenizer", "tokenizer.json", "merges.txt", "vocab.json"],
    );
    let mut files = whole.clone();
    files.remove("tokenizer_2/tokenizer.json");
    let message = T5Tokenizer::load(&files, "tokenizer_2").err().unwrap().to_string();
    assert_mentions(&message, &["model/tokenizer_2", "tokenizer.json"]);
    // Each other's files.
    assert_mentions(
        &ClipTokenizer::load(&whole, "tokenizer_2").err().unwrap().to_string(),
        &["tokenizer_2", "vocab"],
    );
    assert_mentions(
        &T5Tokenizer::load(&whole, "tokenizer").err().unwrap().to_string(),
        &["tokenizer.json", "vocab"],
    );
}

#[test]
fn damaged_tokenizers_never_panic() {
    let mut random = Lcg(3);
    let text = "A cat's pizza, ﬁne ½ 猫 \u{1f431} <pad> </s> <|endoftext|>";
    let small = text_files(&fixture("flux-a"));
    let tiny = without_clip_json();
    let mut try_all = |files: &Memory, path: &str, times: usize| {
        let whole = files.text(path).unwrap().unwrap();
        for _ in 0..times {
            let files = files.clone().with(path, damage(whole.as_bytes(), &mut random));
            if path.starts_with("tokenizer/") {
                let _ =
                    ClipTokenizer::load(&files, "tokenizer").map(|clip| clip.encode(text).is_ok());
            } else {
                let _ =
                    T5Tokenizer::load(&files, "tokenizer_2").map(|t5| t5.encode(text, 16).is_ok());
            }
        }
    };
    try_all(&small, "tokenizer/tokenizer.json", 200);
    try_all(&small, "tokenizer/tokenizer_config.json", 100);
    try_all(&small, "tokenizer_2/tokenizer.json", 400);
    try_all(&tiny, "tokenizer/vocab.json", 50);
    try_all(&tiny, "tokenizer/merges.txt", 50);
    // Mostly hits the character map, which is most of the file.
    try_all(&tiny, "tokenizer_2/tokenizer.json", 60);
}

#[test]
fn damaged_character_maps_never_panic() {
    let mut files = text_files(&tiny_flux());
    let path = "tokenizer_2/tokenizer.json";
    let json: serde_json::Value =
        serde_json::from_str(&files.text(path).unwrap().unwrap()).unwrap();
    let map = json["normalizer"]["precompiled_charsmap"].as_str().unwrap().to_string();
    let mut random = Lcg(4);
    let every_plane: String = (1..0x3000)
        .step_by(7)
        .chain([0xfb01, 0x1f431, 0xac00])
        .filter_map(char::from_u32)
        .collect();
    for i in 0..40 {
        let mut bytes = map.clone().into_bytes();
        match i {
            0 => bytes.clear(),
            1 => bytes.truncate(4),
            2 => bytes.truncate(bytes.len() / 8 * 4),
            _ => {
                for _ in 0..200 {
                    let at = random.below(bytes.len());
                    bytes[at] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
                        [random.below(64)];
                }
            }
        }
        let normalizer = serde_json::json!({"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": String::from_utf8(bytes).unwrap()},
        ]});
        edit(&mut files, path, "normalizer", Some(normalizer));
        match T5Tokenizer::load(&files, "tokenizer_2") {
            Ok(t5) => drop(t5.encode(&every_plane, 64).unwrap()),
            Err(error) => assert_mentions(&error.to_string(), &["precompiled_charsmap"]),
        }
    }
}
