//! Texts of kernels as programs carry them: without comments, indentation and blanks at the ends of lines, which are a third
//! of what a page would download. Line breaks stay, so that numbers of lines in messages are those of the files.

/// The bytes that [`stripped`] keeps of `text`.
pub const fn stripped_len(text: &str) -> usize {
    strip(text.as_bytes(), &mut [])
}

/// `text` without comments and blanks around lines; `N` is [`stripped_len`] of it.
pub const fn stripped<const N: usize>(text: &str) -> [u8; N] {
    let mut out = [0; N];
    strip(text.as_bytes(), &mut out);
    out
}

/// Writes what is kept to `out`, as far as there is room, and counts it. WGSL has no strings, so `//` begins a comment
/// wherever it stands; there are no comments of the other kind.
const fn strip(text: &[u8], out: &mut [u8]) -> usize {
    // What is kept so far, and of that what is kept if the line goes on with anything but blanks.
    let (mut kept, mut with_blanks) = (0, 0);
    let mut is_indentation = true;
    let mut i = 0;
    while i < text.len() {
        let byte = text[i];
        if byte == b'/' && i + 1 < text.len() && text[i + 1] == b'/' {
            while i < text.len() && text[i] != b'\n' {
                i += 1;
            }
            continue;
        }
        i += 1;
        if byte == b'\n' {
            with_blanks = kept;
            is_indentation = true;
        } else if byte == b' ' {
            if is_indentation {
                continue;
            }
        } else {
            is_indentation = false;
        }
        if with_blanks < out.len() {
            out[with_blanks] = byte;
        }
        with_blanks += 1;
        if byte != b' ' {
            kept = with_blanks;
        }
    }
    kept
}

/// The text of a file, stripped when this is compiled.
macro_rules! wgsl {
    ($path:literal) => {{
        const TEXT: &str = include_str!($path);
        const BYTES: &[u8] = &$crate::gpu::shader_text::stripped::<
            { $crate::gpu::shader_text::stripped_len(TEXT) },
        >(TEXT);
        match std::str::from_utf8(BYTES) {
            Ok(text) => text,
            Err(_) => panic!("only whole characters are left out"),
        }
    }};
}
pub(super) use wgsl;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blanks_are_left_out_and_lines_stay() {
        const TEXT: &str =
            "// what it is\n\n    let a = b / c; // of d \n}  \n\n// é\nlet e = \"\";//";
        let kept: [u8; stripped_len(TEXT)] = stripped(TEXT);
        assert_eq!(str::from_utf8(&kept), Ok("\n\nlet a = b / c;\n}\n\n\nlet e = \"\";"));
    }
}
