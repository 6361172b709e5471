//! A model whose bytes come later: from a web server, or from files that a user has picked in a page.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;

use crate::sync::{BoxFuture, Locked, MaybeSend, MaybeSync};

use super::{Blob, Source, SourceError, max_text_bytes, names, slice, to_text};

/// Where the bytes of a [`Remote`] come from. Paths are relative and cannot leave the model. Errors are sentences that
/// say what happened and what to do.
pub trait Origin: MaybeSend + MaybeSync {
    /// Bytes of a file; `None` if there is no such file.
    fn size<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<u64>, String>>;

    /// The bytes `range` of a file that has them.
    fn read<'a>(
        &'a self,
        path: &'a str,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Vec<u8>, String>>;
}

/// What a read that follows the one before is widened to, so that weights come in few large requests.
const AHEAD_BYTES: u64 = 4 << 20;
/// Other reads are widened to whole pages of this size: rows of a token table lie anywhere.
const PAGE_BYTES: u64 = 64 << 10;
/// Bytes of weights that are kept; the oldest go first. More than a single read of a prompt's token rows needs.
const KEEP_BYTES: u64 = 48 << 20;

/// A tree of files that are not here yet.
///
/// Reads answer at once, as those of every [`Source`]: with bytes that have been fetched, or with
/// [`SourceError::Absent`] after noting what is lacking. [`Source::fetch`] gets what was noted, and the read can be made
/// again. So nothing else knows that bytes may have to travel, and no more than a few pieces of a large file are in
/// memory at a time. [`super::read`] is the loop.
///
/// Cheap to clone: clones share what was fetched.
#[derive(Clone)]
pub struct Remote(Arc<Shared>);

struct Shared {
    name: String,
    origin: Box<dyn Origin>,
    state: Locked<State>,
}

#[derive(Default)]
struct State {
    /// Files that were asked for: their length, `None` for those that do not exist.
    sizes: BTreeMap<String, Option<u64>>,
    /// Small files, read as a whole.
    texts: BTreeMap<String, Vec<u8>>,
    /// Parts of large ones, the oldest first.
    pieces: Vec<Piece>,
    wanted: BTreeSet<Wanted>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    Size(String),
    Text(String),
    Bytes(String, u64, u64),
}

struct Piece {
    path: String,
    start: u64,
    bytes: Arc<Vec<u8>>,
}

impl Piece {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl State {
    fn piece(&self, path: &str, range: &Range<u64>) -> Option<&Piece> {
        let inside = |p: &&Piece| p.path == path && p.start <= range.start && range.end <= p.end();
        self.pieces.iter().find(inside)
    }

    /// The range to fetch for a read of `start..end`.
    fn widened(&self, path: &str, start: u64, end: u64, len: u64) -> Range<u64> {
        // What is fetched up to here is followed: by weights, tensor after tensor.
        let follows = |p: &Piece| p.path == path && p.start <= start && start <= p.end();
        if self.pieces.iter().any(follows) {
            return start..end.max(start + AHEAD_BYTES).min(len);
        }
        start / PAGE_BYTES * PAGE_BYTES..end.next_multiple_of(PAGE_BYTES).min(len)
    }

    fn keep(&mut self, piece: Piece) {
        let kept = |pieces: &[Piece]| pieces.iter().map(|p| p.bytes.len() as u64).sum::<u64>();
        while !self.pieces.is_empty() && kept(&self.pieces) + piece.bytes.len() as u64 > KEEP_BYTES
        {
            self.pieces.remove(0);
        }
        self.pieces.push(piece);
    }
}

impl Remote {
    /// A model at `origin` that calls itself `name` in messages.
    pub fn new(name: impl Into<String>, origin: Box<dyn Origin>) -> Self {
        Remote(Arc::new(Shared { name: name.into(), origin, state: Locked::default() }))
    }

    /// Bytes of the model that are in memory now.
    pub fn held_bytes(&self) -> u64 {
        let state = self.0.state.lock();
        let pieces = state.pieces.iter().map(|piece| piece.bytes.len());
        pieces.chain(state.texts.values().map(Vec::len)).sum::<usize>() as u64
    }

    fn shown(&self, path: &str) -> String {
        self.0.shown(path)
    }

    /// The length of a file, if that is known; notes that it is wanted if not.
    fn size(&self, path: &str) -> Result<Option<u64>, SourceError> {
        let mut state = self.0.state.lock();
        if let Some(size) = state.sizes.get(path) {
            return Ok(*size);
        }
        state.wanted.insert(Wanted::Size(path.to_owned()));
        Err(SourceError::Absent { path: self.shown(path) })
    }
}

impl Shared {
    fn shown(&self, path: &str) -> String {
        format!("{}/{path}", self.name.trim_end_matches('/'))
    }

    async fn fetch(&self) -> Result<bool, SourceError> {
        let wanted = std::mem::take(&mut self.state.lock().wanted);
        let any = !wanted.is_empty();
        all(wanted.into_iter().map(|wanted| self.fetch_one(wanted)).collect()).await?;
        Ok(any)
    }

    async fn fetch_one(&self, wanted: Wanted) -> Result<(), SourceError> {
        match wanted {
            Wanted::Size(path) => self.size(&path).await.map(|_| ()),
            Wanted::Text(path) => self.text(path).await,
            Wanted::Bytes(path, start, end) => self.bytes(path, start, end).await,
        }
    }

    async fn size(&self, path: &str) -> Result<Option<u64>, SourceError> {
        let known = self.state.lock().sizes.get(path).copied();
        if let Some(size) = known {
            return Ok(size);
        }
        let size = self.origin.size(path).await;
        let size = size.map_err(|reason| SourceError::Fetch { path: self.shown(path), reason })?;
        self.state.lock().sizes.insert(path.to_owned(), size);
        Ok(size)
    }

    async fn text(&self, path: String) -> Result<(), SourceError> {
        let Some(bytes) = self.size(&path).await? else { return Ok(()) };
        let limit = max_text_bytes(&path);
        if bytes > limit {
            return Err(SourceError::TooLarge { path: self.shown(&path), bytes, limit });
        }
        let text = match bytes {
            0 => Vec::new(),
            _ => self.read(&path, 0..bytes).await?,
        };
        self.state.lock().texts.insert(path, text);
        Ok(())
    }

    async fn bytes(&self, path: String, start: u64, end: u64) -> Result<(), SourceError> {
        let len = self.size(&path).await?.unwrap_or(0);
        let range = {
            let state = self.state.lock();
            // An earlier one of what was wanted may have brought it.
            if state.piece(&path, &(start..end)).is_some() {
                return Ok(());
            }
            state.widened(&path, start, end, len)
        };
        let bytes = Arc::new(self.read(&path, range.clone()).await?);
        self.state.lock().keep(Piece { path, start: range.start, bytes });
        Ok(())
    }

    async fn read(&self, path: &str, range: Range<u64>) -> Result<Vec<u8>, SourceError> {
        let expected = range.end - range.start;
        let failed = |reason| SourceError::Fetch { path: self.shown(path), reason };
        let bytes = self.origin.read(path, range.clone()).await.map_err(failed)?;
        match bytes.len() as u64 == expected {
            true => Ok(bytes),
            false => Err(SourceError::OutOfRange {
                path: self.shown(path),
                start: range.start,
                end: range.end,
                len: range.start + bytes.len() as u64,
            }),
        }
    }
}

impl Source for Remote {
    fn name(&self) -> String {
        self.0.name.clone()
    }

    fn text(&self, path: &str) -> Result<Option<String>, SourceError> {
        let path = names(path)?.join("/");
        let mut state = self.0.state.lock();
        if let Some(bytes) = state.texts.get(&path) {
            return to_text(&self.shown(&path), bytes.clone()).map(Some);
        }
        if state.sizes.get(&path) == Some(&None) {
            return Ok(None);
        }
        let absent = SourceError::Absent { path: self.shown(&path) };
        state.wanted.insert(Wanted::Text(path));
        Err(absent)
    }

    /// False also if that is not known yet: [`Source::fetch`] says so.
    fn exists(&self, path: &str) -> bool {
        match names(path) {
            Ok(names) => matches!(self.size(&names.join("/")), Ok(Some(_))),
            Err(_) => false,
        }
    }

    /// Those that were asked for: servers have no lists.
    fn list(&self, dir: &str) -> Result<Vec<String>, SourceError> {
        let mut prefix = names(dir)?.join("/");
        if !prefix.is_empty() {
            prefix.push('/');
        }
        let state = self.0.state.lock();
        let there = state.sizes.iter().filter(|(_, size)| size.is_some()).map(|(path, _)| path);
        let mut found: Vec<String> = there
            .filter_map(|path| path.strip_prefix(prefix.as_str())?.split('/').next())
            .map(str::to_owned)
            .collect();
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn blob(&self, path: &str) -> Result<Box<dyn Blob>, SourceError> {
        let path = names(path)?.join("/");
        match self.size(&path)? {
            None => Err(SourceError::MissingFile { path: self.shown(&path) }),
            Some(0) => Err(SourceError::Empty { path: self.shown(&path) }),
            Some(len) => Ok(Box::new(RemoteBlob { remote: self.clone(), path, len })),
        }
    }

    fn fetch(&self) -> BoxFuture<'_, Result<bool, SourceError>> {
        Box::pin(self.0.fetch())
    }
}

struct RemoteBlob {
    remote: Remote,
    path: String,
    len: u64,
}

impl Blob for RemoteBlob {
    fn len(&self) -> u64 {
        self.len
    }

    fn bytes(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, SourceError> {
        let shown = || self.remote.shown(&self.path);
        if range.start > range.end || range.end > self.len {
            let Range { start, end } = range;
            return Err(SourceError::OutOfRange { path: shown(), start, end, len: self.len });
        }
        let mut state = self.remote.0.state.lock();
        if let Some(piece) = state.piece(&self.path, &range) {
            let local = range.start - piece.start..range.end - piece.start;
            return slice(&piece.bytes, local, &self.path).map(|bytes| Cow::Owned(bytes.to_vec()));
        }
        state.wanted.insert(Wanted::Bytes(self.path.clone(), range.start, range.end));
        Err(SourceError::Absent { path: shown() })
    }
}

/// Waits for all, which run side by side; the first error ends that.
async fn all<E>(futures: Vec<impl Future<Output = Result<(), E>>>) -> Result<(), E> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        let mut failed = None;
        futures.retain_mut(|future| match future.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(result) => {
                failed = failed.take().or(result.err());
                false
            }
        });
        match failed {
            Some(error) => Poll::Ready(Err(error)),
            None if futures.is_empty() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    })
    .await
}
