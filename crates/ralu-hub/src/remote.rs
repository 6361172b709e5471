//! Requests to the hub: its answers, or sentences.

use std::io::Read;
use std::time::Duration;

use serde::Deserialize;
use ureq::Agent;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode};

use crate::name::check_file;
use crate::transfer::Progress;
use crate::{HubError, Result, Settings};

/// An answer's text has at most this many bytes: that of a repository with ten thousand files has 3 MB.
const MAX_TEXT: u64 = 16 << 20;
/// The longest that one is made to wait for a server that says how long.
const MAX_WAIT: Duration = Duration::from_secs(120);

/// The hub.
pub(crate) struct Remote {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    tries: u32,
    wait: Duration,
}

/// A repository's state, as the hub tells it.
#[derive(Debug, Deserialize)]
pub(crate) struct Info {
    /// The repository's name, in the hub's spelling.
    pub id: String,
    /// The commit.
    pub sha: String,
    pub siblings: Vec<Sibling>,
}

/// A file of a repository.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Sibling {
    /// Its path.
    #[serde(rename = "rfilename")]
    pub path: String,
    pub size: Option<u64>,
    /// Git's hash of a small file.
    #[serde(rename = "blobId")]
    pub blob: Option<String>,
    pub lfs: Option<Lfs>,
}

/// Where a large file lies.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Lfs {
    pub sha256: String,
    pub size: u64,
}

/// An error that another try may not meet.
pub(crate) enum Failure {
    /// After this time, if the server says one. `reason` is for people.
    Again {
        reason: String,
        wait: Option<Duration>,
        throttled: bool,
    },
    Final(HubError),
}

impl Remote {
    pub fn new(settings: &Settings) -> Self {
        let config = Agent::config_builder()
            .user_agent(concat!("ralu/", env!("CARGO_PKG_VERSION")))
            // A token is the hub's affair, and not that of the server that it sends us to.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .max_redirects(8);
        Remote {
            agent: config.build().into(),
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
            tries: settings.tries.max(1),
            wait: settings.wait,
        }
    }

    /// What a repository holds.
    pub fn info(&self, repository: &str, progress: &mut dyn FnMut(Progress)) -> Result<Info> {
        let url = format!("{}/api/models/{repository}/revision/main?blobs=true", self.endpoint);
        let text = self.patiently(progress, |_, _| {
            let response = self.get(&url, repository, None)?;
            let mut text = String::new();
            let mut reader = response.into_body().into_reader().take(MAX_TEXT + 1);
            reader.read_to_string(&mut text).map_err(|error| Failure::Again {
                reason: error.to_string(),
                wait: None,
                throttled: false,
            })?;
            Ok(text)
        })?;
        let answer = |reason: String| HubError::Answer { url: url.clone(), reason };
        if text.len() as u64 > MAX_TEXT {
            return Err(answer(format!("it has more than {MAX_TEXT} bytes")));
        }
        let info: Info = serde_json::from_str(&text).map_err(|error| answer(error.to_string()))?;
        // These become names of files and folders here.
        crate::name::check_repository(&info.id)
            .map_err(|_| answer(format!("the id {:?}", info.id)))?;
        if !is_hash(&info.sha) {
            return Err(answer(format!("the commit {:?}", info.sha)));
        }
        for file in &info.siblings {
            check_file(&file.path)?;
            let hashes = [file.blob.as_deref(), file.lfs.as_ref().map(|lfs| lfs.sha256.as_str())];
            if let Some(hash) = hashes.into_iter().flatten().find(|hash| !is_hash(hash)) {
                return Err(answer(format!("the hash {hash:?} of {}", file.path)));
            }
        }
        Ok(info)
    }

    /// Opens a file from the byte `start` on. The flag says whether the answer starts there; else it has the whole file.
    pub fn open(
        &self,
        repository: &str,
        commit: &str,
        path: &str,
        start: u64,
    ) -> std::result::Result<(bool, Box<dyn Read>), Failure> {
        let url = format!("{}/{repository}/resolve/{commit}/{}", self.endpoint, in_url(path));
        let response = self.get(&url, repository, Some((path, start)))?;
        let from_start = response.status() == StatusCode::PARTIAL_CONTENT;
        if from_start {
            let range =
                response.headers().get("content-range").and_then(|value| value.to_str().ok());
            let begins = range
                .and_then(|range| range.strip_prefix("bytes ")?.split_once('-'))
                .and_then(|(start, _)| start.parse::<u64>().ok());
            if begins != Some(start) {
                let range = range.unwrap_or("nothing");
                let reason =
                    format!("bytes from {start} on were asked for, the answer says {range}");
                return Err(Failure::Final(HubError::Answer { url, reason }));
            }
        }
        Ok((from_start, Box::new(response.into_body().into_reader())))
    }

    fn get(
        &self,
        url: &str,
        repository: &str,
        file: Option<(&str, u64)>,
    ) -> std::result::Result<Response<ureq::Body>, Failure> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some((_, start)) = file {
            // Compressed bytes have other offsets.
            request = request.header("accept-encoding", "identity");
            if start > 0 {
                request = request.header("range", format!("bytes={start}-"));
            }
        }
        let response = request.call().map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let code = header("x-error-code");
        let (repository, has_token) = (repository.to_owned(), self.token.is_some());
        let gated = HubError::Gated {
            repository: repository.clone(),
            endpoint: self.endpoint.clone(),
            has_token,
        };
        Err(Failure::Final(match (status.as_u16(), code.as_str()) {
            (200 | 206, _) => return Ok(response),
            (401 | 403, "GatedRepo") => gated,
            (401 | 403 | 404, "RepoNotFound") | (404, "")
                if file.is_none() || code == "RepoNotFound" =>
            {
                HubError::NoRepository { repository, has_token }
            }
            (401, _) if has_token => HubError::Token { repository },
            (401 | 403, _) => gated,
            (404, _) => HubError::NoFile {
                repository,
                file: file.map_or("main", |(path, _)| path).to_owned(),
                others: vec![],
            },
            (429, _) => {
                let seconds = header("retry-after").trim().parse().ok();
                return Err(Failure::Again {
                    reason: "too many requests".into(),
                    wait: seconds.map(Duration::from_secs),
                    throttled: true,
                });
            }
            (500..=599 | 408, _) => {
                let seconds = header("retry-after").trim().parse().ok();
                return Err(Failure::Again {
                    reason: format!("status {}", status.as_u16()),
                    wait: seconds.map(Duration::from_secs),
                    throttled: false,
                });
            }
            (status, _) => HubError::Status { url: url.to_owned(), status },
        }))
    }

    fn unreachable(&self, error: ureq::Error) -> Failure {
        let reason = error.to_string();
        match error {
            // These do not get better by waiting.
            ureq::Error::BadUri(_) | ureq::Error::HostNotFound | ureq::Error::InvalidProxyUrl => {
                Failure::Final(HubError::Unreachable { endpoint: self.endpoint.clone(), reason })
            }
            _ => Failure::Again { reason, wait: None, throttled: false },
        }
    }

    /// Does something until it succeeds, fails for good, or has failed too often. `action` is given the number of failures
    /// and sets it back to 0 where it gets further.
    pub fn patiently<T>(
        &self,
        progress: &mut dyn FnMut(Progress),
        mut action: impl FnMut(&mut u32, &mut dyn FnMut(Progress)) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let mut tried = 0;
        loop {
            let failure = match action(&mut tried, progress) {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            tried += 1;
            let (reason, asked, throttled) = match failure {
                Failure::Final(error) => return Err(error),
                Failure::Again { throttled: true, .. } if tried >= self.tries => {
                    return Err(HubError::TooMany { tries: tried });
                }
                Failure::Again { reason, .. } if tried >= self.tries => {
                    return Err(HubError::Unreachable { endpoint: self.endpoint.clone(), reason });
                }
                Failure::Again { reason, wait, throttled } => (reason, wait, throttled),
            };
            let own = self.wait.saturating_mul(1 << (tried - 1).min(6));
            let wait = asked.unwrap_or(own).min(MAX_WAIT);
            progress(Progress::Waiting { reason, wait, throttled });
            std::thread::sleep(wait);
        }
    }
}

/// Whether it is a hash in hexadecimal digits, which can be a file's name.
fn is_hash(text: &str) -> bool {
    (8..=128).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_hexdigit())
}

/// A path as it stands in an address.
fn in_url(path: &str) -> String {
    let mut url = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                url.push(char::from(byte));
            }
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}
