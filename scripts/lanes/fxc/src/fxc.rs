//! d3dcompiler_47.dll, which is FXC, and the system's clock of a thread's processor time.

use std::ffi::{CString, c_char, c_void};
use std::ptr::{null, null_mut};

type Object = *mut c_void;

/// `D3DCompile` of d3dcompiler.h.
type Compile = unsafe extern "system" fn(
    *const u8,
    usize,
    *const c_char,
    *const c_void,
    *const c_void,
    *const c_char,
    *const c_char,
    u32,
    u32,
    *mut Object,
    *mut Object,
) -> i32;

/// Of `ID3DBlob`, after the three functions of `IUnknown`.
#[repr(C)]
struct BlobTable {
    _query: Object,
    _add: Object,
    release: unsafe extern "system" fn(Object) -> u32,
    start: unsafe extern "system" fn(Object) -> *const u8,
    bytes: unsafe extern "system" fn(Object) -> usize,
}

#[link(name = "kernel32")]
unsafe extern "system" {
    fn LoadLibraryA(name: *const c_char) -> Object;
    fn GetProcAddress(library: Object, name: *const c_char) -> Object;
    fn GetCurrentThread() -> Object;
    fn GetThreadTimes(
        thread: Object,
        created: &mut u64,
        exited: &mut u64,
        kernel: &mut u64,
        user: &mut u64,
    ) -> i32;
}

/// What wgpu asks FXC for: this alone, and shader model 5.1.
const ENABLE_STRICTNESS: u32 = 1 << 11;
const PROFILE: &std::ffi::CStr = c"cs_5_1";

pub struct Fxc {
    compile: Compile,
}

impl Fxc {
    pub fn open() -> Result<Fxc, String> {
        // SAFETY: both names end with a zero; the library stays loaded, and the signature is d3dcompiler.h's.
        unsafe {
            let library = LoadLibraryA(c"d3dcompiler_47.dll".as_ptr());
            if library.is_null() {
                return Err("d3dcompiler_47.dll cannot be loaded".to_owned());
            }
            let compile = GetProcAddress(library, c"D3DCompile".as_ptr());
            if compile.is_null() {
                return Err("d3dcompiler_47.dll has no D3DCompile".to_owned());
            }
            Ok(Fxc { compile: std::mem::transmute::<Object, Compile>(compile) })
        }
    }

    /// The seconds of processor time that it took; an error is the compiler's message.
    pub fn compile(&self, text: &str, entry: &str) -> (f64, Result<(), String>) {
        let entry = CString::new(entry).expect("entry points have no zeros");
        let (mut program, mut messages) = (null_mut(), null_mut());
        let start = processor_seconds();
        // SAFETY: it reads so many bytes of the text, the strings end with zeros, and it writes two pointers.
        let code = unsafe {
            (self.compile)(
                text.as_ptr(),
                text.len(),
                null(),
                null(),
                null(),
                entry.as_ptr(),
                PROFILE.as_ptr(),
                ENABLE_STRICTNESS,
                0,
                &mut program,
                &mut messages,
            )
        };
        let seconds = processor_seconds() - start;
        // SAFETY: each is a blob or null, and taken once.
        let (program, messages) = unsafe { (take(program), take(messages)) };
        let messages = String::from_utf8_lossy(&messages);
        let outcome = if code < 0 {
            Err(format!("{code:#x}: {}", messages.trim_end_matches(['\0', '\n'])))
        } else if !program.starts_with(b"DXBC") {
            // Programs lie in a container with these letters. Wine's own compiler is no FXC.
            Err("it says that all is well and wrote no program".to_owned())
        } else {
            Ok(())
        };
        (seconds, outcome)
    }
}

/// The bytes of a blob, which is released.
///
/// # Safety
///
/// `blob` is an `ID3DBlob` that nobody uses afterwards, or null.
unsafe fn take(blob: Object) -> Vec<u8> {
    if blob.is_null() {
        return Vec::new();
    }
    // SAFETY: an object begins with the pointer to its table; the bytes live until it is released.
    unsafe {
        let table = &**blob.cast::<*const BlobTable>();
        let bytes = std::slice::from_raw_parts((table.start)(blob), (table.bytes)(blob)).to_vec();
        (table.release)(blob);
        bytes
    }
}

/// Of this thread: other programs on the machine do not count.
fn processor_seconds() -> f64 {
    let [mut created, mut exited, mut kernel, mut user] = [0; 4];
    // SAFETY: the four are where it writes; the handle stands for this thread and need not be closed.
    unsafe {
        GetThreadTimes(GetCurrentThread(), &mut created, &mut exited, &mut kernel, &mut user)
    };
    // In units of 100 ns.
    (kernel + user) as f64 * 1e-7
}
