//! GGUF files: what is read of them, and damaged ones.

use ralu::checkpoint::gguf::Value;
use ralu::checkpoint::source::Memory;
use ralu::checkpoint::weights::{WeightError, Weights};

use crate::folders::assert_mentions;

/// A GGUF file in the making: lengths and numbers are written as they are given, whatever they are.
pub struct Gguf {
    version: u32,
    n_tensors: u64,
    n_entries: u64,
    entries: Vec<u8>,
    tensors: Vec<u8>,
    data: Vec<u8>,
    alignment: usize,
}

impl Gguf {
    pub fn new() -> Self {
        let (entries, tensors, data) = (vec![], vec![], vec![]);
        Gguf { version: 3, n_tensors: 0, n_entries: 0, entries, tensors, data, alignment: 32 }
    }

    fn text(out: &mut Vec<u8>, text: &str) {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    }

    /// A metadata entry of type `kind`, whose value has these bytes.
    pub fn entry(mut self, name: &str, kind: u32, value: &[u8]) -> Self {
        Self::text(&mut self.entries, name);
        self.entries.extend(kind.to_le_bytes());
        self.entries.extend(value);
        self.n_entries += 1;
        self
    }

    pub fn text_entry(self, name: &str, text: &str) -> Self {
        let mut value = vec![];
        Self::text(&mut value, text);
        self.entry(name, 8, &value)
    }

    /// A tensor of type `kind`, the fastest dimension first, at `offset`.
    pub fn tensor_at(mut self, name: &str, sides: &[u64], kind: u32, offset: u64) -> Self {
        Self::text(&mut self.tensors, name);
        self.tensors.extend((sides.len() as u32).to_le_bytes());
        self.tensors.extend(sides.iter().flat_map(|side| side.to_le_bytes()));
        self.tensors.extend(kind.to_le_bytes());
        self.tensors.extend(offset.to_le_bytes());
        self.n_tensors += 1;
        self
    }

    /// The same with its bytes, after those before it.
    pub fn tensor(mut self, name: &str, sides: &[u64], kind: u32, bytes: &[u8]) -> Self {
        let offset = self.data.len().next_multiple_of(self.alignment);
        self.data.resize(offset, 0);
        self.data.extend(bytes);
        self.tensor_at(name, sides, kind, offset as u64)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend(self.n_tensors.to_le_bytes());
        file.extend(self.n_entries.to_le_bytes());
        file.extend(&self.entries);
        file.extend(&self.tensors);
        file.resize(file.len().next_multiple_of(self.alignment), 0);
        file.extend(&self.data);
        file
    }
}

fn open(bytes: impl AsRef<[u8]>) -> Result<Weights, WeightError> {
    Weights::open_file(&Memory::new("m").with("f.gguf", bytes), "f.gguf")
}

/// Two numbers of F32.
const TWO: [u8; 8] = [0, 0, 128, 63, 0, 0, 0, 192];

/// Whatever it is called, a file is what its first bytes say.
#[test]
fn headers_are_read() {
    let array = |item: u32, count: u64, items: &[u8]| {
        [&item.to_le_bytes()[..], &count.to_le_bytes(), items].concat()
    };
    for version in [2, 3] {
        let mut file = Gguf::new()
            .text_entry("general.architecture", "flux")
            .entry("a.u8", 0, &[200])
            .entry("a.i8", 1, &[200])
            .entry("a.u16", 2, &[1, 2])
            .entry("a.i32", 5, &(-7i32).to_le_bytes())
            .entry("a.f32", 6, &1.5f32.to_le_bytes())
            .entry("a.flag", 7, &[1])
            .entry("a.u64", 10, &u64::MAX.to_le_bytes())
            .entry("a.f64", 12, &2.5f64.to_le_bytes())
            .entry("a.list", 9, &array(4, 3, &[0; 12]))
            .entry(
                "a.lists",
                9,
                &array(
                    9,
                    1,
                    &array(8, 2, &[&[1, 0, 0, 0, 0, 0, 0, 0, b'x'][..], &[0; 8]].concat()),
                ),
            )
            .entry(
                "comfy.gguf.orig_shape.b",
                9,
                &array(5, 3, &[1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]),
            )
            .tensor("a", &[2, 1], 0, &TWO)
            .tensor("b", &[2], 0, &TWO)
            .tensor("q", &[32, 2], 8, &[0; 68]);
        file.version = version;
        let source = Memory::new("m").with("f.safetensors", file.bytes());
        let weights = Weights::open_file(&source, "f.safetensors").unwrap();
        let shape = |name: &str| weights.info(name).unwrap().shape.clone();
        assert_eq!((shape("a"), shape("b"), shape("q")), (vec![1, 2], vec![1, 2, 1], vec![2, 32]));
        assert_eq!(weights.info("q").unwrap().dtype.name(), "Q8_0");
        for name in ["a", "b"] {
            assert_eq!(weights.tensor_f32(weights.info(name).unwrap()).unwrap(), [1.0, -2.0]);
        }
        assert_eq!(weights.tensor_f32(weights.info("q").unwrap()).unwrap(), [0.0; 64]);
        let metadata = weights.gguf().unwrap();
        assert_eq!(metadata.text("general.architecture"), Some("flux"));
        assert_eq!(metadata.count("a.u8"), Some(200));
        assert_eq!(metadata.get("a.i8"), Some(&Value::Integer(-56)));
        assert_eq!(metadata.count("a.u16"), Some(513));
        assert_eq!(metadata.count("a.i32"), None);
        assert_eq!(metadata.get("a.f32"), Some(&Value::Number(1.5)));
        assert_eq!(metadata.get("a.f64"), Some(&Value::Number(2.5)));
        assert_eq!(metadata.get("a.flag"), Some(&Value::Flag(true)));
        assert_eq!(metadata.count("a.u64"), Some(u64::MAX));
        assert!(matches!(metadata.get("a.list"), Some(Value::Array { item: 4, count: 3, .. })));
        assert!(matches!(metadata.get("a.lists"), Some(Value::Array { item: 9, count: 1, .. })));
    }
}

#[test]
fn rows_and_halves_are_views() {
    let numbers: Vec<u8> = (0..8u32).flat_map(|i| (i as f32).to_le_bytes()).collect();
    // Four blocks of Q8_0, whose scales are 1, 2, 3 and 4 and whose codes are 1.
    let halves = [0x3c00u16, 0x4000, 0x4200, 0x4400];
    let blocks: Vec<u8> =
        halves.iter().flat_map(|d| [&d.to_le_bytes()[..], &[1; 32]].concat()).collect();
    let file = Gguf::new().tensor("m", &[2, 4], 0, &numbers).tensor("q", &[32, 4], 8, &blocks);
    let weights = open(file.bytes()).unwrap();
    let of = |info| weights.tensor_f32(&info).unwrap();
    let m = weights.info("m").unwrap();
    assert_eq!(of(m.rows(1..3).unwrap()), [2.0, 3.0, 4.0, 5.0]);
    assert_eq!(m.rows(3..5), None);
    let swapped = m.with_halves_swapped().unwrap();
    assert_eq!(of(swapped.clone()), [4.0, 5.0, 6.0, 7.0, 0.0, 1.0, 2.0, 3.0]);
    // Ranges before, around and behind the middle.
    for range in [0..2, 1..4, 2..7, 3..5, 4..8, 5..6] {
        let whole = of(swapped.clone());
        let mut part = vec![];
        weights.read_f32(&swapped, range.start as u64..range.end as u64, &mut part).unwrap();
        assert_eq!(part, whole[range]);
    }
    let q = weights.info("q").unwrap();
    assert_eq!(of(q.rows(2..3).unwrap()), [3.0; 32]);
    assert_eq!(of(q.with_halves_swapped().unwrap())[..32], [3.0; 32]);
    assert_eq!(m.reshaped(&[8]).unwrap().shape, [8]);
    assert_eq!(m.reshaped(&[7]), None);
}

#[test]
fn damaged_files_are_refused_with_a_reason() {
    let good = || Gguf::new().tensor("a", &[2], 0, &TWO);
    let with = |change: &dyn Fn(&mut Gguf)| {
        let mut file = good();
        change(&mut file);
        file.bytes()
    };
    let deep = |depth: usize| {
        let mut value = [&4u32.to_le_bytes()[..], &0u64.to_le_bytes()].concat();
        for _ in 1..depth {
            value = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes(), &value].concat();
        }
        good().entry("deep", 9, &value).bytes()
    };
    open(deep(4)).unwrap();
    let many = [&8u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
    let cases: Vec<(Vec<u8>, &[&str])> = vec![
        (with(&|file| file.version = 1), &["version 1", "2 and 3"]),
        (with(&|file| file.version = 3u32.swap_bytes()), &["big-endian"]),
        (with(&|file| file.version = 4), &["version 4"]),
        (b"GGUF\x03\0\0\0".to_vec(), &["number of tensors", "ends after 8", "incomplete"]),
        (with(&|file| file.n_tensors = u64::MAX), &["tensors are announced"]),
        (with(&|file| file.n_tensors = 60_000), &["the tensor", "again"]),
        (with(&|file| file.n_entries = u64::MAX), &["metadata entries are announced"]),
        (
            good().entry("x", 8, &u64::MAX.to_le_bytes()).bytes(),
            &["metadata entry x", "incomplete"],
        ),
        (good().entry("x", 9, &many).bytes(), &["metadata entry x", "incomplete"]),
        (good().entry("x", 13, &[0; 8]).bytes(), &["metadata entry x has type 13"]),
        (good().entry("x", 0, &[1]).entry("x", 0, &[1]).bytes(), &["x occurs twice"]),
        (deep(5), &["deep", "more than 4 deep"]),
        (good().entry("split.count", 2, &[3, 0]).bytes(), &["3 files", "llama-gguf-split"]),
        (
            good().entry("general.alignment", 4, &[3, 0, 0, 0]).bytes(),
            &["alignment", "power of two"],
        ),
        (good().entry("general.alignment", 4, &[0; 4]).bytes(), &["alignment"]),
        (good().tensor("a", &[2], 0, &TWO).bytes(), &["tensor a occurs twice"]),
        (good().tensor_at("b", &[2], 0, 4).bytes(), &["tensor b begins at 4", "multiple of 32"]),
        (good().tensor_at("b", &[2], 0, 0).bytes(), &["a and b overlap"]),
        (good().tensor_at("b", &[200], 0, 32).bytes(), &["tensor b", "800 bytes", "incomplete"]),
        (good().tensor_at("b", &[2], 0, 1 << 63).bytes(), &["tensor b", "incomplete"]),
        (good().tensor_at("b", &[1 << 32, 1 << 31], 0, 32).bytes(), &["tensor b", "overflows"]),
        (good().tensor_at("b", &[], 0, 32).bytes(), &["tensor b has 0 dimensions"]),
        (good().tensor_at("b", &[1; 5], 0, 32).bytes(), &["tensor b has 5 dimensions"]),
        (good().tensor("b", &[48, 2], 8, &[0; 102]).bytes(), &["rows of 48 numbers in Q8_0", "32"]),
        (good().bytes()[..70].to_vec(), &["tensor a", "incomplete", "again"]),
    ];
    for (bytes, parts) in cases {
        let message = open(&bytes).unwrap_err().to_string();
        assert_mentions(&message, &[&["m/f.gguf"], parts].concat());
    }
    // However a file is cut, that is an error, and never a panic.
    let whole = good().text_entry("general.architecture", "flux").bytes();
    for n in 1..whole.len() {
        assert!(open(&whole[..n]).is_err(), "{n} bytes");
    }
}

/// A type that is not read is no obstacle until its tensor is asked for.
#[test]
fn unknown_types_are_named() {
    let file = Gguf::new()
        .tensor("a", &[32], 16, &[0; 20])
        .tensor("b", &[32], 16, &[0; 20])
        .tensor("c", &[2], 0, &TWO);
    let weights = open(file.bytes()).unwrap();
    let manifest = ralu::checkpoint::weights::Manifest::new(&weights);
    manifest.root().require("c", &[2]);
    manifest.root().require("a", &[32]);
    manifest.root().require("b", &[32]);
    let message = manifest.finish(&[]).unwrap_err().to_string();
    assert_mentions(&message, &["m/f.gguf", "tensor a", "GGML type 16", "2 tensors", "Q4_K"]);
}
