//! Microsoft's HLSL compiler, as a shared library on Linux. It has COM's interfaces: pointers to tables of functions.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use libloading::{Library, Symbol};

use crate::Result;

type Object = *mut c_void;

/// Functions of `IUnknown` at the start of every table. COM has three; in this library a virtual destructor follows them,
/// for which GCC and Clang keep two entries.
const UNKNOWN: usize = 5;
/// `IUnknown::Release`.
const RELEASE: usize = 2;
/// The only function of `IDxcCompiler3` that is used, the first.
const COMPILE: usize = UNKNOWN;
/// Of `IDxcResult`, which begins with the three functions of `IDxcOperationResult`.
const GET_STATUS: usize = UNKNOWN;
const GET_OUTPUT: usize = UNKNOWN + 4;
/// Of `IDxcBlob`.
const BUFFER: usize = UNKNOWN;
const SIZE: usize = UNKNOWN + 1;

/// `DXC_OUT_OBJECT` and `DXC_OUT_ERRORS`.
const OUT_OBJECT: u32 = 1;
const OUT_ERRORS: u32 = 2;
/// `DXC_CP_UTF8`.
const UTF_8: u32 = 65001;

#[repr(C)]
struct Guid(u32, u16, u16, [u8; 8]);

// As they stand in dxcapi.h.
const CLSID_COMPILER: Guid =
    Guid(0x73e2_2d93, 0xe6ce, 0x47f3, [0xb5, 0xbf, 0xf0, 0x66, 0x4f, 0x39, 0xc1, 0xb0]);
const COMPILER: Guid =
    Guid(0x228b_4687, 0x5a6a, 0x4730, [0x90, 0x0c, 0x97, 0x02, 0xb2, 0x20, 0x3f, 0x54]);
const RESULT: Guid =
    Guid(0x5834_6cda, 0xdde7, 0x4497, [0x94, 0x61, 0x6f, 0x87, 0xaf, 0x5e, 0x06, 0x59]);
const BLOB: Guid =
    Guid(0x8ba5_fb08, 0x5195, 0x40e2, [0xac, 0x58, 0x0d, 0x98, 0x9c, 0x3a, 0x01, 0x02]);

/// `DxcBuffer`.
#[repr(C)]
struct Source {
    text: *const u8,
    bytes: usize,
    encoding: u32,
}

type Create = unsafe extern "C" fn(&Guid, &Guid, *mut Object) -> i32;
type Compile = unsafe extern "C" fn(
    Object,
    &Source,
    *const *const u32,
    u32,
    Object,
    &Guid,
    *mut Object,
) -> i32;
type GetStatus = unsafe extern "C" fn(Object, &mut i32) -> i32;
type GetOutput = unsafe extern "C" fn(Object, u32, &Guid, *mut Object, *mut Object) -> i32;
type Pointer = unsafe extern "C" fn(Object) -> *const u8;
type Number = unsafe extern "C" fn(Object) -> usize;
type Release = unsafe extern "C" fn(Object) -> u32;

/// Compiles the files of a folder, or as many of each kernel as `most` says. Their first lines are comments that name the
/// entry point.
pub fn run(library: &Path, profile: &str, folder: &Path, most: &str) -> Result<()> {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    all.sort();
    let files = if most == "all" { all.clone() } else { spread(&all, most.parse()?) };
    let mut texts = Vec::new();
    for path in &files {
        texts.push(Text::read(path)?);
    }
    // Threads take what the others left.
    let next = AtomicUsize::new(0);
    let worker = || -> std::result::Result<(usize, f64, usize), String> {
        let dxc = Dxc::open(library).map_err(|error| error.to_string())?;
        let (mut refused, mut seconds, mut slowest) = (0, 0.0, 0);
        while let Some((i, text)) = text_at(&texts, &next) {
            let start = Instant::now();
            if let Err(message) = dxc.compile(&text.hlsl, &text.entry, profile) {
                println!("{}: {message}", files[i].display());
                refused += 1;
            }
            let taken = start.elapsed().as_secs_f64();
            if taken > seconds {
                (seconds, slowest) = (taken, i);
            }
        }
        Ok((refused, seconds, slowest))
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let done = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    let (mut refused, mut slowest) = (0, (0.0, 0));
    for thread in done {
        let (n, seconds, file) = thread.map_err(|_| "a thread panicked")??;
        refused += n;
        if seconds > slowest.0 {
            slowest = (seconds, file);
        }
    }
    let (n, total) = (files.len(), all.len());
    let name = files.get(slowest.1).and_then(|path| path.file_stem()).unwrap_or_default();
    println!(
        "note: {refused} of {n} refused; the slowest took {:.1} s ({})",
        slowest.0,
        name.to_string_lossy()
    );
    if n < total {
        println!("part: {n} of {total}, at most {most} of each kernel");
    }
    match (n, refused) {
        (0, _) => Err(format!("{} is empty", folder.display()).into()),
        (_, 0) => Ok(()),
        _ => Err(format!("DXC refuses {refused} files").into()),
    }
}

struct Text {
    hlsl: String,
    entry: String,
}

impl Text {
    fn read(path: &Path) -> Result<Text> {
        let hlsl = std::fs::read_to_string(path)?;
        let entry = hlsl.lines().next().and_then(|line| line.strip_prefix("// "));
        let entry = entry.ok_or_else(|| format!("{}: no entry point", path.display()))?.to_owned();
        Ok(Text { hlsl, entry })
    }
}

/// The next text that nobody has taken.
fn text_at<'a>(texts: &'a [Text], next: &AtomicUsize) -> Option<(usize, &'a Text)> {
    let i = next.fetch_add(1, Ordering::Relaxed);
    Some((i, texts.get(i)?))
}

/// At most `most` files of each kernel, from its first to its last. Names are `number-kernel.hlsl`.
fn spread(files: &[PathBuf], most: usize) -> Vec<PathBuf> {
    let mut kernels = BTreeMap::<String, Vec<&PathBuf>>::new();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kernel = name.split_once('-').map_or("", |(_, kernel)| kernel);
        kernels.entry(kernel.to_owned()).or_default().push(path);
    }
    let some = |files: &Vec<&PathBuf>| -> Vec<PathBuf> {
        let n = most.min(files.len());
        (0..n).map(|i| files[i * (files.len() - 1) / (n - 1).max(1)].clone()).collect()
    };
    kernels.values().flat_map(some).collect()
}

struct Dxc {
    compiler: Object,
    /// Its functions are called until the end.
    _library: Library,
}

impl Dxc {
    fn open(path: &Path) -> Result<Dxc> {
        // SAFETY: it is Microsoft's library, whose initialisers need nothing of us; the signature is dxcapi.h's.
        unsafe {
            let library = Library::new(path)?;
            let create: Symbol<'_, Create> = library.get(b"DxcCreateInstance")?;
            let mut compiler = null_mut();
            succeed("DxcCreateInstance", create(&CLSID_COMPILER, &COMPILER, &mut compiler))?;
            Ok(Dxc { compiler, _library: library })
        }
    }

    /// An error is the compiler's message.
    fn compile(&self, text: &str, entry: &str, profile: &str) -> Result<()> {
        // `wchar_t` has 32 bits on Linux.
        let wide = |word: &&str| word.chars().map(u32::from).chain([0]).collect::<Vec<u32>>();
        let mut words = vec!["-E", entry, "-T", profile];
        // From 6.2 on there are such types, and wgpu asks for them.
        if profile != "cs_6_0" {
            words.push("-enable-16bit-types");
        }
        let arguments: Vec<Vec<u32>> = words.iter().map(wide).collect();
        let pointers: Vec<*const u32> = arguments.iter().map(|word| word.as_ptr()).collect();
        let source = Source { text: text.as_ptr(), bytes: text.len(), encoding: UTF_8 };
        // SAFETY: places in the tables and signatures are dxcapi.h's, and all pointers outlive the calls.
        unsafe {
            let mut result = null_mut();
            let compile: Compile = function(self.compiler, COMPILE);
            let (words, n) = (pointers.as_ptr(), pointers.len() as u32);
            let code = compile(self.compiler, &source, words, n, null_mut(), &RESULT, &mut result);
            succeed("Compile", code)?;
            let mut status = 0;
            let get_status: GetStatus = function(result, GET_STATUS);
            succeed("GetStatus", get_status(result, &mut status))?;
            let errors = output(result, OUT_ERRORS);
            let object = output(result, OUT_OBJECT);
            release(result);
            let errors = String::from_utf8_lossy(&errors);
            if status < 0 {
                return Err(errors.trim_end_matches('\0').into());
            }
            // DXIL lies in a container with these letters.
            if !object.starts_with(b"DXBC") {
                return Err("it says that all is well and wrote no program".into());
            }
        }
        Ok(())
    }
}

fn succeed(what: &str, code: i32) -> Result<()> {
    if code < 0 { Err(format!("{what} failed with {code:#x}").into()) } else { Ok(()) }
}

/// An entry of an object's table.
///
/// # Safety
///
/// `object` is one of the library's, and `F` is the type of its function at `index`.
unsafe fn function<F: Copy>(object: Object, index: usize) -> F {
    // SAFETY: an object begins with the pointer to its table; the rest is the caller's promise.
    unsafe { std::mem::transmute_copy(&*(*object.cast::<*const Object>()).add(index)) }
}

unsafe fn release(object: Object) {
    // SAFETY: every object has it.
    unsafe { function::<Release>(object, RELEASE)(object) };
}

/// The bytes of one output of a result; none if there is no such output.
unsafe fn output(result: Object, kind: u32) -> Vec<u8> {
    // SAFETY: `result` is an `IDxcResult`; what it gives out is an `IDxcBlob` or null.
    unsafe {
        let mut blob = null_mut();
        let get_output: GetOutput = function(result, GET_OUTPUT);
        // Its name is not wanted.
        if get_output(result, kind, &BLOB, &mut blob, null_mut()) < 0 || blob.is_null() {
            return Vec::new();
        }
        let (start, n): (Pointer, Number) = (function(blob, BUFFER), function(blob, SIZE));
        let (start, n) = (start(blob), n(blob));
        let bytes = if start.is_null() { &[] } else { std::slice::from_raw_parts(start, n) };
        let bytes = bytes.to_vec();
        release(blob);
        bytes
    }
}
