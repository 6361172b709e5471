//! A server that plays the Hugging Face hub on this machine: its API, its files with ranges, the redirect to another
//! host for large files, and everything that goes wrong.

#![allow(dead_code, reason = "the command line's tests use a part of it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ralu_hub::Settings;
use sha2::{Digest, Sha256};

/// The commit that all repositories are at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server has and does.
#[derive(Default)]
pub struct State {
    /// By `owner/repo/path`.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Files of at least this many bytes lie at the other host.
    pub large: usize,
    /// The token without which nothing is given, and the error code that says so.
    pub token: Option<(String, u16, &'static str)>,
    /// Statuses to answer the next requests of files with, and their Retry-After.
    pub refuse: Vec<(u16, Option<u32>)>,
    /// After how many bytes the next transfers break off.
    pub break_after: Vec<usize>,
    /// Whether ranges are ignored.
    pub no_ranges: bool,
    /// Bytes to change in what is sent.
    pub damage: bool,
    /// The answer of the API, if not the true one.
    pub info: Option<String>,
    /// Requests that arrived: host, path, range and whether there was a token.
    pub seen: Vec<Seen>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub host: String,
    pub path: String,
    pub range: Option<String>,
    pub token: bool,
}

/// The server; its thread ends with the test program.
pub struct Server {
    port: u16,
    pub state: Arc<Mutex<State>>,
}

impl Server {
    pub fn start(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let files = files.iter().map(|(path, bytes)| (path.to_string(), bytes.to_vec())).collect();
        let state = Arc::new(Mutex::new(State { files, large: 1000, ..State::default() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || {
                    let _ = answer(stream, port, &state);
                });
            }
        });
        Server { port, state }
    }

    pub fn settings(&self, cache: &Path) -> Settings {
        Settings {
            cache: cache.to_owned(),
            endpoint: format!("http://127.0.0.1:{}", self.port),
            token: None,
            offline: false,
            tries: 3,
            wait: Duration::from_millis(1),
        }
    }

    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// The requests of files since the last call.
    pub fn files_asked(&self) -> Vec<Seen> {
        let seen = std::mem::take(&mut self.state.lock().unwrap().seen);
        seen.into_iter().filter(|seen| !seen.path.starts_with("/api/")).collect()
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn answer(mut stream: TcpStream, port: u16, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut host, mut range, mut token) = (String::new(), None, None);
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "host" => host = value.to_owned(),
            "range" => range = Some(value.to_owned()),
            "authorization" => token = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut state = state.lock().unwrap();
    let seen = Seen {
        host: host.clone(),
        path: path.clone(),
        range: range.clone(),
        token: token.is_some(),
    };
    state.seen.push(seen);
    let other_host = host.starts_with("localhost");
    if let Some((wanted, status, code)) = &state.token
        && !other_host
        && token.as_deref() != Some(&format!("Bearer {wanted}"))
    {
        return reply(&mut stream, *status, &[("X-Error-Code", code)], b"no");
    }
    if let Some(rest) = path.strip_prefix("/api/models/") {
        let repository = rest.split("/revision/").next().unwrap_or_default();
        if !rest.ends_with("/revision/main?blobs=true") {
            return reply(&mut stream, 404, &[], b"");
        }
        return match info(&state, repository) {
            Some(info) => reply(&mut stream, 200, &[], info.as_bytes()),
            None => reply(&mut stream, 404, &[("X-Error-Code", "RepoNotFound")], b""),
        };
    }
    if !state.refuse.is_empty() {
        let (status, wait) = state.refuse.remove(0);
        let wait = wait.map(|wait| wait.to_string());
        let headers: Vec<(&str, &str)> =
            wait.iter().map(|wait| ("Retry-After", wait.as_str())).collect();
        return reply(&mut stream, status, &headers, b"");
    }
    let file = match path.strip_prefix("/other/") {
        Some(file) => file.to_owned(),
        None => path.trim_start_matches('/').replacen(&format!("/resolve/{COMMIT}/"), "/", 1),
    };
    let file = file.replace("%20", " ");
    let Some(bytes) = state.files.get(&file).cloned() else {
        return reply(&mut stream, 404, &[("X-Error-Code", "EntryNotFound")], b"");
    };
    if bytes.len() >= state.large && !other_host {
        let location = format!("http://localhost:{port}/other/{}", file.replace(' ', "%20"));
        return reply(&mut stream, 302, &[("Location", &location)], b"");
    }
    let start: usize = match range.filter(|_| !state.no_ranges) {
        Some(range) => range
            .strip_prefix("bytes=")
            .and_then(|range| range.strip_suffix('-'))
            .and_then(|start| start.parse().ok())
            .unwrap_or(0),
        None => 0,
    };
    let mut body = bytes[start.min(bytes.len())..].to_vec();
    if state.damage {
        body[0] ^= 1;
    }
    let status = if start > 0 { 206 } else { 200 };
    let content_range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
    let mut head =
        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    if status == 206 {
        head += &format!("Content-Range: {content_range}\r\n");
    }
    if !state.break_after.is_empty() {
        let n = state.break_after.remove(0);
        body.truncate(n);
    }
    drop(state);
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&body)
}

/// What the API says of a repository.
fn info(state: &State, repository: &str) -> Option<String> {
    if let Some(info) = &state.info {
        return Some(info.clone());
    }
    // The hub answers under any spelling.
    let own = state.files.iter().filter_map(|(path, bytes)| {
        let (owner, rest) = path.split_once('/')?;
        let (repo, file) = rest.split_once('/')?;
        let name = format!("{owner}/{repo}");
        name.eq_ignore_ascii_case(repository).then_some((name, file, bytes))
    });
    let mut id = None;
    let mut siblings = Vec::new();
    for (name, file, bytes) in own {
        id = Some(name);
        let mut sibling = serde_json::json!({
            "rfilename": file, "size": bytes.len(), "blobId": sha256(bytes)[..40],
        });
        if bytes.len() >= state.large {
            sibling["lfs"] = serde_json::json!({ "sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 134 });
        }
        siblings.push(sibling);
    }
    let info =
        serde_json::json!({ "id": id?, "sha": COMMIT, "gated": false, "siblings": siblings });
    Some(info.to_string())
}

fn reply(
    stream: &mut TcpStream,
    status: u16,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<()> {
    let mut head =
        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body)
}
