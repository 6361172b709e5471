//! Models whose bytes have to be fetched: what is asked for, how often, and how much is kept.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use ralu::checkpoint::source::{BoxFuture, Origin, Remote, Source, SourceError, read};
use ralu::checkpoint::weights::Weights;

/// Files, of which some are too large to exist, and a record of what was asked.
#[derive(Clone, Default)]
struct Server(Arc<Files>);

#[derive(Default)]
struct Files {
    files: BTreeMap<&'static str, File>,
    requests: Mutex<Vec<(String, Range<u64>)>>,
}

struct File {
    /// The beginning; zeros follow.
    start: Vec<u8>,
    len: u64,
    /// Answers end here, whatever was asked.
    ends: u64,
}

impl Server {
    fn with(files: impl IntoIterator<Item = (&'static str, File)>) -> Server {
        Server(Arc::new(Files { files: files.into_iter().collect(), requests: Mutex::default() }))
    }

    fn remote(&self) -> Remote {
        Remote::new("https://models.test/m/", Box::new(self.clone()))
    }

    fn requests(&self) -> Vec<(String, Range<u64>)> {
        std::mem::take(&mut *self.0.requests.lock().unwrap())
    }
}

fn file(start: impl AsRef<[u8]>) -> File {
    let start = start.as_ref().to_vec();
    File { len: start.len() as u64, ends: u64::MAX, start }
}

impl Origin for Server {
    fn size<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<u64>, String>> {
        Box::pin(async move {
            later().await;
            Ok(self.0.files.get(path).map(|file| file.len))
        })
    }

    fn read<'a>(
        &'a self,
        path: &'a str,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Vec<u8>, String>> {
        Box::pin(async move {
            later().await;
            self.0.requests.lock().unwrap().push((path.to_owned(), range.clone()));
            let file = self.0.files.get(path).ok_or("gone")?;
            let end = range.end.min(file.ends);
            let byte = |i: u64| file.start.get(i as usize).copied().unwrap_or(0);
            Ok((range.start..end).map(byte).collect())
        })
    }
}

/// Pending once, as everything that travels is.
async fn later() {
    let mut waited = false;
    std::future::poll_fn(move |_| match std::mem::replace(&mut waited, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}

/// A checkpoint of f16 zeros: a small tensor, then a large one. The header says where they are, nothing else exists.
fn checkpoint(rows: u64, columns: u64) -> File {
    let large = 2 * rows * columns;
    let header = format!(
        r#"{{"bias":{{"dtype":"F16","shape":[4],"data_offsets":[0,8]}},"weight":{{"dtype":"F16","shape":[{rows},{columns}],"data_offsets":[8,{}]}}}}"#,
        8 + large
    );
    let mut start = (header.len() as u64).to_le_bytes().to_vec();
    start.extend(header.as_bytes());
    File { len: start.len() as u64 + 8 + large, ends: u64::MAX, start }
}

#[test]
fn reads_fetch_what_they_lack_and_nothing_else() {
    let server = Server::with([
        ("model_index.json", file("{}")),
        ("vae/config.json", file(r#"{"a": 1}"#)),
        ("vae/empty.json", file("")),
    ]);
    let remote = server.remote();
    assert!(matches!(remote.text("vae/config.json"), Err(SourceError::Absent { .. })));
    assert!(!remote.exists("vae/config.json"), "unknown counts as absent");
    assert!(wait(remote.fetch()).unwrap(), "something was lacking");
    assert!(!wait(remote.fetch()).unwrap(), "nothing is lacking any more");
    assert_eq!(remote.text("vae/config.json").unwrap().as_deref(), Some(r#"{"a": 1}"#));
    assert!(remote.exists("vae/config.json"));
    assert_eq!(server.requests(), [("vae/config.json".to_owned(), 0..8)]);

    let text = |path: &'static str| wait(read(&remote, || remote.text(path)));
    assert_eq!(text("vae/none.json").unwrap(), None);
    assert!(matches!(text("vae/empty.json"), Err(SourceError::Empty { .. })));
    assert_eq!(text("./model_index.json").unwrap().as_deref(), Some("{}"));
    assert_eq!(server.requests(), [("model_index.json".to_owned(), 0..2)]);
    assert_eq!(remote.list("").unwrap(), ["model_index.json", "vae"]);
    assert_eq!(remote.list("vae").unwrap(), ["config.json", "empty.json"]);
    assert!(matches!(text("../secret"), Err(SourceError::BadPath { .. })));

    let blob = |path: &'static str| wait(read(&remote, || remote.blob(path).map(|b| b.len())));
    assert!(matches!(blob("vae/none.bin"), Err(SourceError::MissingFile { .. })));
    assert!(matches!(blob("vae/empty.json"), Err(SourceError::Empty { .. })));
    assert_eq!(blob("vae/config.json").unwrap(), 8);
}

/// More than 4 GiB, of which never more than a few pieces are in memory.
#[test]
fn a_checkpoint_of_five_gibibytes_streams_through() {
    let (rows, columns) = (163_840, 16_384);
    let server = Server::with([("t/model.safetensors", checkpoint(rows, columns))]);
    let remote = server.remote();
    let weights = wait(read(&remote, || Weights::open(&remote, "t", "model"))).unwrap();
    let weight = weights.info("weight").unwrap();
    assert!(weight.range.end > 5 << 30, "{:?}", weight.range);
    let opened = server.requests();
    assert!(opened.iter().all(|(_, range)| range.end <= 64 << 10), "{opened:?}");

    // As weights are packed: 64 rows at a time, from the front. Here the first and the last 256 MiB.
    let row_bytes = 2 * columns;
    let first = (0..64 * 128).step_by(64);
    let last = (rows - 64 * 128..rows).step_by(64);
    let mut most = 0;
    for row in first.chain(last) {
        let range = row * row_bytes..(row + 64) * row_bytes;
        let bytes = wait(read(&remote, || {
            weights.bytes(weight, range.clone()).map(|bytes| bytes.len() as u64)
        }));
        assert_eq!(bytes.unwrap(), 64 * row_bytes);
        most = most.max(remote.held_bytes());
    }
    assert!(most <= 64 << 20, "{most} bytes were in memory");
    let requests = server.requests();
    let fetched: u64 = requests.iter().map(|(_, range)| range.end - range.start).sum();
    assert!(fetched < 560 << 20, "{fetched} bytes were fetched for 512 MiB");
    assert!(requests.len() < 300, "{} requests for 512 MiB", requests.len());
}

/// A prompt needs rows of a token table that lie anywhere: small requests, and all rows can be had in one read.
#[test]
fn scattered_rows_are_small_requests() {
    let server = Server::with([("t/model.safetensors", checkpoint(32_128, 4096))]);
    let remote = server.remote();
    let weights = wait(read(&remote, || Weights::open(&remote, "t", "model"))).unwrap();
    let table = weights.info("weight").unwrap();
    server.requests();
    let rows: Vec<usize> = (0..512).map(|i| (i * 9973) % 32_128).collect();
    let read_all = || {
        rows.iter().map(|row| weights.rows_f32(table, *row..row + 1)).collect::<Result<Vec<_>, _>>()
    };
    assert_eq!(wait(read(&remote, read_all)).unwrap().len(), 512);
    let requests = server.requests();
    let fetched: u64 = requests.iter().map(|(_, range)| range.end - range.start).sum();
    assert!(fetched <= 512 * (128 << 10), "{fetched} bytes for 512 rows of 8 KiB");
}

#[test]
fn answers_that_are_too_short_or_missing_are_errors() {
    let cut = File { ends: 100, ..checkpoint(64, 64) };
    let long = File { len: 1 << 30, ..file("{") };
    let server = Server::with([("t/model.safetensors", cut), ("config.json", long)]);
    let remote = server.remote();
    let error = wait(read(&remote, || Weights::open(&remote, "t", "model"))).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("the file has 100 bytes") && message.contains("truncated"),
        "{message}"
    );
    let error = wait(read(&remote, || remote.text("config.json"))).unwrap_err();
    assert!(matches!(error, SourceError::TooLarge { .. }), "{error}");

    struct Refuses;
    impl Origin for Refuses {
        fn size<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<u64>, String>> {
            Box::pin(async { Err("the server answered 503".to_owned()) })
        }

        fn read<'a>(&'a self, _: &'a str, _: Range<u64>) -> BoxFuture<'a, Result<Vec<u8>, String>> {
            Box::pin(async { Err("never asked".to_owned()) })
        }
    }
    let remote = Remote::new("https://models.test/m/", Box::new(Refuses));
    let error = wait(read(&remote, || remote.text("model_index.json"))).unwrap_err().to_string();
    assert_eq!(
        error,
        "https://models.test/m/model_index.json: cannot fetch the file: the server answered 503"
    );
}
