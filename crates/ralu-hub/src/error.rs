//! What can go wrong, a sentence each: what happened, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use ralu::escape::Escaped;
use ralu::gpu::human_bytes;

/// Why a model could not be had by its name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum HubError {
    #[error("{}: expected a known name, owner/repo, or owner/repo:file", Escaped(.name))]
    Name { name: String },
    #[error("{}: the hub gives a file this name, which could leave the folder; nothing was written", Escaped(.name))]
    FileName { name: String },
    #[error("{}: not in the cache ({}), and the network is switched off (HF_HUB_OFFLINE)", Escaped(.what), Escaped(.cache))]
    Offline { what: String, cache: String },
    #[error(
        "{}: the hub cannot be reached: {}; check the network, HTTPS_PROXY and HF_ENDPOINT, or set HF_HUB_OFFLINE=1 to use \
         only what is in the cache",
        Escaped(.endpoint), Escaped(.reason)
    )]
    Unreachable { endpoint: String, reason: String },
    #[error(
        "{}: not there, or private: the hub knows no such repository{}",
        Escaped(.repository),
        if *.has_token { " for the token that was sent" } else { "; for a private one, log in: `hf auth login`, or HF_TOKEN" }
    )]
    NoRepository { repository: String, has_token: bool },
    #[error(
        "{repo}: the licence has to be accepted before the model can be downloaded: open {}/{repo} in a browser, log in and \
         accept it, then {}",
        Escaped(.endpoint),
        if *.has_token {
            "try again (the token that was sent belongs to an account that has not accepted it, or that waits for an answer)"
        } else {
            "log in here, too: `hf auth login`, or HF_TOKEN with a token from the account's settings"
        },
        repo = Escaped(.repository)
    )]
    Gated { repository: String, endpoint: String, has_token: bool },
    #[error(
        "{}: the hub refuses the token (HF_TOKEN, or the one that `hf auth login` kept): it is invalid or has expired; make a \
         new one in the account's settings",
        Escaped(.repository)
    )]
    Token { repository: String },
    #[error("{}: the repository has no file {}{}", Escaped(.repository), Escaped(.file), has(.others))]
    NoFile { repository: String, file: String, others: Vec<String> },
    #[error(
        "{}: holds no model in diffusers' layout (no model_index.json); name one of its files as {0}:FILE{}",
        Escaped(.repository), has(.files)
    )]
    NoModel { repository: String, files: Vec<String> },
    #[error(
        "{}: its pipeline is {}; supported are {}",
        Escaped(.repository), Escaped(.pipeline), .supported.join(", ")
    )]
    Pipeline { repository: String, pipeline: String, supported: Vec<&'static str> },
    #[error("{}: the repository lacks {}", Escaped(.repository), Escaped(.what))]
    Incomplete { repository: String, what: String },
    #[error(
        "the hub asks to wait (too many requests, status 429) and goes on asking after {tries} tries; try again later, or log in"
    )]
    TooMany { tries: u32 },
    #[error("{}: the hub answers with the status {status}; try again later", Escaped(.url))]
    Status { url: String, status: u16 },
    #[error("{}: an answer that cannot be used: {}", Escaped(.url), Escaped(.reason))]
    Answer { url: String, reason: String },
    #[error(
        "{}: the transfer broke off after {} of {} bytes, {tries} times without getting further: {}; what has arrived is kept, \
         try again",
        Escaped(.file), .bytes, .of, Escaped(.reason)
    )]
    Broken { file: String, bytes: u64, of: u64, tries: u32, reason: String },
    #[error(
        "{}: what has arrived is not the file that the hub has (SHA-256 {found}, expected {expected}); it was removed, try again",
        Escaped(.file)
    )]
    Checksum { file: String, found: String, expected: String },
    #[error(
        "{}: {} are needed and {} are free; make room, or choose another folder with HF_HOME",
        Escaped(&.folder.to_string_lossy()), human_bytes(*.need), human_bytes(*.free)
    )]
    Full { folder: PathBuf, need: u64, free: u64 },
    #[error(
        "{}: the disk is full; what has arrived is kept: make room and try again, or choose another folder with HF_HOME",
        Escaped(&.path.to_string_lossy())
    )]
    FullWhileWriting { path: PathBuf },
    #[error("{}: another program is downloading this file; wait until it has finished", Escaped(&.path.to_string_lossy()))]
    Busy { path: PathBuf },
    #[error("{}: cannot {action}: {error}", Escaped(&.path.to_string_lossy()))]
    Io { path: PathBuf, action: &'static str, error: io::Error },
}

impl HubError {
    pub(crate) fn io(path: &Path, action: &'static str, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                HubError::FullWhileWriting { path: path.to_owned() }
            }
            _ => HubError::Io { path: path.to_owned(), action, error },
        }
    }
}

/// The files there are, for the end of a message.
fn has(files: &[String]) -> String {
    const SHOWN: usize = 12;
    if files.is_empty() {
        return String::new();
    }
    let shown = files.iter().take(SHOWN).map(|file| Escaped(file).to_string());
    let more = match files.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("; it has {}{more}", shown.collect::<Vec<_>>().join(", "))
}
