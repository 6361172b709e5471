//! Finding the request that a PNG carries.
//!
//! Chunks are walked here and not by a decoder of pictures: the request may stand behind the pixels, pixels may be
//! damaged, and nothing but the request is kept in memory.

use std::io::{self, ErrorKind, Read};

use fdeflate::{BoundedDecompressionError, decompress_to_vec_bounded};

use crate::pipeline::Saved;

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
/// Largest request, packed or not, in bytes. A prompt of 16 MiB, the most that the command line takes, fits.
const MAX_BYTES: usize = 64 << 20;

/// Why the request of a PNG cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("not a readable PNG ({0}); expected a picture that ralu made")]
    NotPng(&'static str),
    /// The request is longer than any that ralu writes.
    #[error(
        "the request in this picture is longer than {} MiB; ralu writes none that is so long",
        MAX_BYTES >> 20
    )]
    TooLong,
    /// The chunk with the request is damaged.
    #[error("the request in this picture is damaged ({0}); expected a picture as ralu made it")]
    Damaged(&'static str),
}

/// Kinds of text chunks, the one that is trusted most first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    International,
    Plain,
    Packed,
}

impl Kind {
    fn of(kind: &[u8; 4]) -> Option<Kind> {
        match kind {
            b"iTXt" => Some(Kind::International),
            b"tEXt" => Some(Kind::Plain),
            b"zTXt" => Some(Kind::Packed),
            _ => None,
        }
    }
}

/// The JSON of the request that a PNG carries, for [`Saved::parse`]; `None` if it carries none.
///
/// Reads to the file's end if need be, but pixels are skipped. Takes no more memory than a few times the 64 MiB that a
/// request may have.
pub fn request_in(mut png: impl Read) -> Result<Option<String>, TextError> {
    let mut signature = [0; 8];
    match png.read_exact(&mut signature) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return Err(TextError::NotPng("it is too short"));
        }
        read => read?,
    }
    if signature != SIGNATURE {
        return Err(TextError::NotPng("it does not begin as one"));
    }
    let mut found: Vec<(Kind, Result<String, TextError>)> = vec![];
    loop {
        let next = match next_chunk(&mut png, &found) {
            Err(TextError::Io(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                if found.is_empty() {
                    return Err(TextError::NotPng("it ends too early"));
                }
                // Half a picture, but its request is whole.
                break;
            }
            next => next?,
        };
        match next {
            Chunk::Request(kind, text) => found.push((kind, text)),
            Chunk::Other => {}
            Chunk::End => break,
        }
    }
    found.sort_by_key(|(kind, text)| (text.is_err(), *kind));
    found.into_iter().next().map(|(_, text)| text).transpose()
}

enum Chunk {
    Request(Kind, Result<String, TextError>),
    Other,
    End,
}

/// Reads the next chunk. One request of each kind is enough.
fn next_chunk(
    png: &mut impl Read,
    found: &[(Kind, Result<String, TextError>)],
) -> Result<Chunk, TextError> {
    let mut head = [0; 8];
    png.read_exact(&mut head)?;
    let [a, b, c, d, kind @ ..] = head;
    let length = u64::from(u32::from_be_bytes([a, b, c, d]));
    let mut rest = length;
    let mut begin = [0; Saved::KEYWORD.len() + 1];
    let wanted = Kind::of(&kind).filter(|kind| found.iter().all(|(other, _)| other != kind));
    if let Some(wanted) = wanted
        && length >= begin.len() as u64
    {
        png.read_exact(&mut begin)?;
        rest -= begin.len() as u64;
        if begin.strip_suffix(&[0]) == Some(Saved::KEYWORD.as_bytes()) {
            return Ok(Chunk::Request(wanted, read_request(png, wanted, kind, &begin, rest)?));
        }
    }
    // Its checksum too.
    skip(png, rest + 4)?;
    Ok(if &kind == b"IEND" { Chunk::End } else { Chunk::Other })
}

/// Reads the rest of a text chunk. Fails if the file ends or cannot be read; what else is wrong is the text's failure.
fn read_request(
    png: &mut impl Read,
    kind: Kind,
    name: [u8; 4],
    begin: &[u8],
    rest: u64,
) -> Result<Result<String, TextError>, TextError> {
    if rest > MAX_BYTES as u64 {
        skip(png, rest + 4)?;
        return Ok(Err(TextError::TooLong));
    }
    // Grows with what is really there.
    let mut body = Vec::new();
    if png.take(rest).read_to_end(&mut body)? as u64 != rest {
        return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
    }
    let mut checksum = [0; 4];
    png.read_exact(&mut checksum)?;
    let mut crc = crc32fast::Hasher::new();
    for part in [&name, begin, &body] {
        crc.update(part);
    }
    if crc.finalize() != u32::from_be_bytes(checksum) {
        return Ok(Err(TextError::Damaged("its checksum is wrong")));
    }
    Ok(decode(kind, body))
}

/// The text of a chunk, from behind its keyword.
fn decode(kind: Kind, body: Vec<u8>) -> Result<String, TextError> {
    match kind {
        Kind::Plain => Ok(older_text(body)),
        Kind::Packed => match body.split_first() {
            Some((0, packed)) => Ok(older_text(unpack(packed)?)),
            _ => Err(TextError::Damaged("it is packed in an unknown way")),
        },
        Kind::International => {
            let damaged = || TextError::Damaged("a field is missing");
            let [packed, method, fields @ ..] = body.as_slice() else { return Err(damaged()) };
            // A language and the keyword's translation.
            let mut fields = fields.splitn(3, |byte| *byte == 0);
            let text = fields.nth(2).ok_or_else(damaged)?;
            let text = match (packed, method) {
                (0, _) => text.to_vec(),
                (1, 0) => unpack(text)?,
                _ => return Err(TextError::Damaged("it is packed in an unknown way")),
            };
            String::from_utf8(text).map_err(|_| TextError::Damaged("it is not UTF-8"))
        }
    }
}

/// A text of the kinds that are Latin-1 by the standard. ImageMagick 7 puts into them what it has read as UTF-8, which
/// Latin-1 texts with other letters than ASCII's hardly ever look like.
fn older_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| error.as_bytes().iter().map(|byte| char::from(*byte)).collect())
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, TextError> {
    // It calls what ends exactly at its limit too large.
    match decompress_to_vec_bounded(packed, MAX_BYTES + 1) {
        Ok(bytes) if bytes.len() <= MAX_BYTES => Ok(bytes),
        Ok(_) | Err(BoundedDecompressionError::OutputTooLarge { .. }) => Err(TextError::TooLong),
        Err(BoundedDecompressionError::DecompressionError { .. }) => {
            Err(TextError::Damaged("it cannot be unpacked"))
        }
    }
}

fn skip(png: &mut impl Read, bytes: u64) -> Result<(), TextError> {
    match io::copy(&mut png.take(bytes), &mut io::sink())? {
        skipped if skipped == bytes => Ok(()),
        _ => Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = "{\"prompt\":\"é 猫\"}";

    fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
        bytes.extend([kind, body].concat());
        bytes.extend(crc32fast::hash(&[kind, body].concat()).to_be_bytes());
        bytes
    }

    fn png(chunks: &[Vec<u8>]) -> Vec<u8> {
        [SIGNATURE.to_vec(), chunk(b"IHDR", &[0; 13]), chunks.concat(), chunk(b"IEND", b"")]
            .concat()
    }

    fn found(chunks: &[Vec<u8>]) -> Option<String> {
        request_in(png(chunks).as_slice()).unwrap()
    }

    fn failure(bytes: &[u8]) -> String {
        request_in(bytes).unwrap_err().to_string()
    }

    fn itxt(text: &str) -> Vec<u8> {
        chunk(b"iTXt", &[b"ralu\0\0\0\0\0", text.as_bytes()].concat())
    }

    fn packed(text: &[u8]) -> Vec<u8> {
        fdeflate::compress_to_vec(text)
    }

    #[test]
    fn a_request_is_found_in_every_kind_of_text_chunk() {
        let body = |head: &[u8], text: &[u8]| [b"ralu\0", head, text].concat();
        let pixels = chunk(b"IDAT", b"no pixels at all");
        for (kind, text, expected) in [
            (b"iTXt", body(b"\0\0\0\0", JSON.as_bytes()), Some(JSON)),
            (b"iTXt", body(b"\0\0de\0Bitte\0", JSON.as_bytes()), Some(JSON)),
            (b"iTXt", body(b"\x01\0\0\0", &packed(JSON.as_bytes())), Some(JSON)),
            (b"tEXt", body(b"", b"{}"), Some("{}")),
            // Latin-1, and UTF-8 that is said to be Latin-1.
            (b"tEXt", body(b"", b"{\"\xe9\"}"), Some("{\"é\"}")),
            (b"tEXt", body(b"", JSON.as_bytes()), Some(JSON)),
            (b"zTXt", body(b"\0", &packed(b"{\"\xe9\"}")), Some("{\"é\"}")),
            (b"zTXt", body(b"\0", &packed(JSON.as_bytes())), Some(JSON)),
            (b"tEXt", b"Comment\0{}".to_vec(), None),
            (b"tEXt", b"ralu2\0{}".to_vec(), None),
            (b"tEXt", b"ra".to_vec(), None),
            (b"eXIf", body(b"", b"{}"), None),
        ] {
            let text = chunk(kind, &text);
            // Before the pixels, and behind them.
            assert_eq!(found(&[text.clone(), pixels.clone()]).as_deref(), expected, "{kind:?}");
            assert_eq!(found(&[pixels.clone(), text]).as_deref(), expected, "{kind:?}");
        }
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn of_several_requests_one_that_can_be_read_is_taken() {
        let plain = chunk(b"tEXt", b"ralu\0plain");
        assert_eq!(found(&[plain.clone(), itxt("first"), itxt("second")]).unwrap(), "first");
        let mut damaged = itxt("first");
        damaged[20] ^= 1;
        assert_eq!(found(&[damaged.clone(), plain]).unwrap(), "plain");
        assert!(failure(&png(&[damaged])).contains("checksum"));
        assert!(failure(&png(&[chunk(b"zTXt", b"ralu\0\0nonsense")])).contains("unpacked"));
        assert!(failure(&png(&[chunk(b"iTXt", b"ralu\0\0\0\0\0\xe9")])).contains("UTF-8"));
        assert!(failure(&png(&[chunk(b"iTXt", b"ralu\0\0\0")])).contains("missing"));
    }

    #[test]
    fn what_is_no_png_says_so() {
        for (bytes, reason) in [
            (b"".as_slice(), "too short"),
            (b"GIF89a, and more", "does not begin as one"),
            (&png(&[])[..30], "ends too early"),
            // A chunk of 2 GiB that is not there.
            (&[png(&[])[..33].to_vec(), b"\x7f\xff\xff\xfftEXtralu\0".to_vec()].concat(), "early"),
        ] {
            let message = failure(bytes);
            assert!(
                message.contains("not a readable PNG") && message.contains(reason),
                "{message}"
            );
        }
        // The end is missing, the request is not.
        let whole = png(&[itxt(JSON), chunk(b"IDAT", &[0; 100])]);
        assert_eq!(request_in(&whole[..whole.len() - 60]).unwrap().as_deref(), Some(JSON));
    }

    #[test]
    fn a_request_that_unpacks_to_more_than_the_limit_is_refused() {
        // Runs of zeros are all that the crate packs well.
        let bomb = |bytes: usize| packed(&vec![0; bytes]);
        for (kind, head) in [(b"iTXt", b"ralu\0\x01\0\0\0".as_slice()), (b"zTXt", b"ralu\0\0")] {
            let text = |bytes| png(&[chunk(kind, &[head, &bomb(bytes)].concat())]);
            assert!(failure(&text(MAX_BYTES + 1)).contains("64 MiB"));
            let fits = request_in(text(MAX_BYTES).as_slice()).unwrap();
            assert_eq!(fits.map(|text| text.len()), Some(MAX_BYTES));
        }
        let long = chunk(b"tEXt", &[b"ralu\0".as_slice(), &vec![b' '; MAX_BYTES + 1]].concat());
        assert!(failure(&png(&[long])).contains("64 MiB"));
    }
}
