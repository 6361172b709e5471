//! Commands, and the recorder that collects them.

use std::cell::{Ref, RefCell};
use std::ops::Range;
use std::sync::Arc;

use super::{
    Band, Caps, F16Range, Fallback, Flops, MAX_WORKGROUPS, PackedWeight, Resident, ResidentId,
    Tensor, Work, split_rows,
};

/// A temporary of one recording, before the memory plan gave it a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TempId(pub u32);

/// A buffer as a command names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BufferRef {
    /// A temporary of this recording.
    Temp(TempId),
    /// Buffer number `.1` (a band or a shard) of a resident.
    Resident(ResidentId, u32),
}

/// How a dispatch uses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// A storage buffer of a dispatch. Binding 0 is `params`; storage buffers count from 1 in order.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// What is bound, as a whole.
    pub buffer: BufferRef,
    /// How it is used.
    pub access: Access,
}

/// Which pipeline a dispatch runs: a kernel, its parts and its constants.
#[derive(Clone, Debug, PartialEq)]
pub struct PipelineKey {
    /// File stem in `shaders/`.
    pub shader: &'static str,
    /// Entry point.
    pub entry: &'static str,
    /// Which file of `shaders/lib` takes the place of `#import <role>`.
    pub roles: Vec<(&'static str, &'static str)>,
    /// `override` constants.
    pub overrides: Vec<(&'static str, f64)>,
}

/// One kernel launch.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// What runs.
    pub pipeline: PipelineKey,
    /// Bytes of the uniform `params`.
    pub params: Vec<u8>,
    /// Storage buffers, inputs first.
    pub bindings: Vec<Binding>,
    /// Workgroups in each dimension.
    pub groups: [u32; 3],
    /// Estimated floating-point operations, multiply and add counted apart.
    pub flops: f64,
    /// For debuggers, profiles and errors.
    pub label: String,
}

/// One GPU command.
#[derive(Clone, Debug)]
pub enum Command {
    /// A kernel launch.
    Dispatch(Dispatch),
    /// A copy between two different buffers; offsets and sizes in bytes, multiples of 4.
    Copy {
        /// Source.
        src: BufferRef,
        /// Where to read.
        src_offset: u64,
        /// Destination.
        dst: BufferRef,
        /// Where to write.
        dst_offset: u64,
        /// How much.
        bytes: u64,
    },
    /// Copies all of a temporary to the host, until it is restored for the last time.
    Save {
        /// What is copied.
        src: BufferRef,
        /// Its size.
        bytes: u64,
        /// The number of the copy.
        copy: u32,
    },
    /// Brings back what was saved.
    Restore {
        /// The number of the copy.
        copy: u32,
        /// A temporary of the same size.
        dst: BufferRef,
        /// Its size.
        bytes: u64,
        /// Nothing asks for the copy again before it is saved again.
        is_last: bool,
    },
}

impl Command {
    /// All buffers that it names, with whether it writes them.
    pub fn buffers(&self) -> Vec<(BufferRef, bool)> {
        match self {
            Command::Dispatch(dispatch) => {
                let bindings = dispatch.bindings.iter();
                bindings.map(|b| (b.buffer, b.access == Access::ReadWrite)).collect()
            }
            Command::Copy { src, dst, .. } => vec![(*src, false), (*dst, true)],
            Command::Save { src, .. } => vec![(*src, false)],
            Command::Restore { dst, .. } => vec![(*dst, true)],
        }
    }
}

/// A finished list of commands.
#[derive(Clone, Debug)]
pub struct Recording {
    /// For debuggers and errors.
    pub label: String,
    /// In order of execution.
    pub commands: Vec<Command>,
    /// Size of each temporary.
    pub temp_bytes: Vec<u64>,
    /// Label of each temporary.
    pub temp_labels: Vec<String>,
    /// What its ops compute, in order: those that take time.
    pub works: Vec<Work>,
}

impl Recording {
    /// The operations of all matrix products, as the ops define them.
    pub fn products(&self) -> Flops {
        self.works.iter().map(Work::flops).sum()
    }

    /// Estimated floating-point operations of all dispatches: what kernels do.
    pub fn flops(&self) -> f64 {
        self.commands
            .iter()
            .map(|command| match command {
                Command::Dispatch(dispatch) => dispatch.flops,
                Command::Copy { .. } | Command::Save { .. } | Command::Restore { .. } => 0.0,
            })
            .sum()
    }

    /// Bytes that cross the bus in one run because temporaries wait on the host.
    pub fn spilled_bytes(&self) -> u64 {
        let commands = self.commands.iter().map(|command| match command {
            Command::Save { bytes, .. } | Command::Restore { bytes, .. } => *bytes,
            Command::Dispatch(_) | Command::Copy { .. } => 0,
        });
        commands.sum()
    }
}

/// What a [`Tensor`] is a view of.
pub(crate) struct Base {
    pub(crate) label: String,
    /// Columns of a row, and so the distance between rows.
    pub(crate) cols: usize,
    /// Rows of each neighbouring band that a band of an image holds copies of.
    pub(crate) halo: usize,
    /// Of a picture: pixels that a group norm sums up together. Bands end between two of these chunks.
    pub(crate) chunk: Option<usize>,
    /// Numbers are f16, not f32.
    pub(crate) is_f16: bool,
    pub(super) bands: Vec<BandBuffer>,
}

pub(crate) struct BandBuffer {
    pub(crate) row0: usize,
    pub(crate) rows: usize,
    pub(crate) buffer: BufferRef,
}

impl Base {
    pub(crate) fn band_at(&self, row: usize) -> &BandBuffer {
        &self.bands[self.index_at(row)]
    }

    /// The number of the band that a row lies in.
    pub(crate) fn index_at(&self, row: usize) -> usize {
        self.bands.partition_point(|band| band.row0 + band.rows <= row)
    }

    /// The rows of each band.
    pub(crate) fn band_rows(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.bands.iter().map(|band| band.row0..band.row0 + band.rows)
    }
}

#[derive(Default)]
pub(super) struct Inner {
    bases: Vec<Base>,
    pub(super) commands: Vec<Command>,
    temp_bytes: Vec<u64>,
    temp_labels: Vec<String>,
    scope: Vec<String>,
    works: Vec<Work>,
}

/// Collects commands. Ops append to it through the tensors it hands out.
pub struct Recorder {
    caps: Caps,
    pub(super) f16_range: Option<Arc<F16Range>>,
    /// Bytes that a band of a picture may take.
    pub(super) band_bytes: u64,
    pub(super) inner: RefCell<Inner>,
}

impl Recorder {
    /// An empty recorder for an adapter with these capabilities.
    pub fn new(caps: Caps) -> Self {
        Recorder::with_f16_range(caps, None)
    }

    /// An empty recorder; kernels that round to f16 tell `f16_range` of numbers that are too large for it.
    pub fn with_f16_range(caps: Caps, f16_range: Option<Arc<F16Range>>) -> Self {
        let band_bytes = caps.max_binding_bytes;
        Recorder { caps, f16_range, band_bytes, inner: RefCell::default() }
    }

    /// Keeps pictures in bands of at most `bytes`, where these are less than a binding may cover and a band then still has
    /// a few rows.
    pub fn in_bands_of(self, bytes: u64) -> Self {
        Recorder { band_bytes: bytes.min(self.band_bytes), ..self }
    }

    /// The capabilities that ops may rely on.
    pub fn caps(&self) -> Caps {
        self.caps
    }

    /// Runs `body` with `name` in front of the labels of everything it records.
    pub fn scope<T>(&self, name: impl Into<String>, body: impl FnOnce() -> T) -> T {
        self.inner.borrow_mut().scope.push(name.into());
        let result = body();
        self.inner.borrow_mut().scope.pop();
        result
    }

    /// The capabilities that products may rely on in the block at hand, which may have to be in f32.
    pub fn matmul_caps(&self) -> Caps {
        Caps { f16: self.caps.f16 && self.fallback() != Some(Fallback::F32), ..self.caps }
    }

    /// The constant of kernels that round to f16 by which they multiply the block's activations before and divide results,
    /// if they are to.
    pub fn f16_scale(&self) -> Option<(&'static str, f64)> {
        let is_scaled = self.fallback() == Some(Fallback::Scaled);
        is_scaled.then_some(("SCALE", f64::from(Fallback::SCALE)))
    }

    fn fallback(&self) -> Option<Fallback> {
        self.f16_range.as_ref()?.fallback(&self.block())
    }

    /// The buffer and number of the flag that says that the block at hand has a number beyond f16. Without anybody who
    /// looks at it, a temporary.
    pub fn f16_flag(&self) -> (BufferRef, usize) {
        match &self.f16_range {
            Some(range) => {
                let flags = self.resident(range.flags()).expect_single("flags").0;
                (flags, range.flag(&self.block()))
            }
            None => (self.temp("f16.flag", 1, 4).expect_single("flags").0, 0),
        }
    }

    /// The outermost scope: `double.3`. What is outside of all counts as one block.
    fn block(&self) -> String {
        let inner = self.inner.borrow();
        inner.scope.first().cloned().unwrap_or_else(|| F16Range::AROUND.to_owned())
    }

    /// `name` after the names of the open scopes: `double.3.attn`.
    pub fn label(&self, name: &str) -> String {
        let inner = self.inner.borrow();
        let mut label = String::new();
        for part in inner.scope.iter().map(String::as_str).chain([name]) {
            if !label.is_empty() {
                label.push('.');
            }
            label.push_str(part);
        }
        label
    }

    /// An uninitialised matrix `[rows, cols]` that lives inside this recording. `cols` is a multiple of 4.
    pub fn temp(&self, name: &str, rows: usize, cols: usize) -> Tensor<'_> {
        self.temp_as(name, [rows, cols], false)
    }

    /// [`Recorder::temp`] of numbers in f16 or in f32; in f16 for what only products read that round it to that. Few ops can
    /// write or read those.
    pub fn temp_as(&self, name: &str, [rows, cols]: [usize; 2], in_f16: bool) -> Tensor<'_> {
        let bytes = if in_f16 { 2 } else { 4 };
        let bands = split_rows(rows, 1, (cols * bytes) as u64, self.caps.max_binding_bytes);
        self.banded(name, [rows, cols], in_f16, None, bands)
    }

    /// Whether a [`Recorder::temp`] of that shape lies in one buffer.
    pub fn is_one_buffer(&self, rows: usize, cols: usize) -> bool {
        (rows * cols * 4) as u64 <= self.caps.max_binding_bytes
    }

    /// [`Recorder::temp`] in one buffer, for what is no larger than an existing buffer.
    pub fn temp_in_one(&self, name: &str, rows: usize, cols: usize) -> Tensor<'_> {
        self.banded(name, [rows, cols], false, None, vec![Band { row0: 0, rows }])
    }

    /// A matrix in bands; a picture's have the rows of `picture`, its halo and its chunk.
    pub(super) fn banded(
        &self,
        name: &str,
        [rows, cols]: [usize; 2],
        is_f16: bool,
        picture: Option<(usize, usize)>,
        bands: Vec<Band>,
    ) -> Tensor<'_> {
        let (halo, chunk) = (picture.map_or(0, |(halo, _)| halo), picture.map(|(_, chunk)| chunk));
        assert!(cols.is_multiple_of(4), "{name}: {cols} columns, kernels need a multiple of 4");
        assert!(rows > 0 && cols > 0, "{name}: an empty tensor [{rows}, {cols}]");
        let label = self.label(name);
        let mut inner = self.inner.borrow_mut();
        let number_bytes = if is_f16 { 2 } else { 4 };
        let bands = bands
            .into_iter()
            .map(|band| {
                let above = if band.row0 == 0 { 0 } else { halo };
                let below = if band.row0 + band.rows == rows { 0 } else { halo };
                let id = TempId(inner.temp_bytes.len() as u32);
                inner.temp_bytes.push(((above + band.rows + below) * cols * number_bytes) as u64);
                inner.temp_labels.push(label.clone());
                BandBuffer { row0: band.row0, rows: band.rows, buffer: BufferRef::Temp(id) }
            })
            .collect();
        let base = inner.bases.len() as u32;
        inner.bases.push(Base { label, cols, halo, chunk, is_f16, bands });
        Tensor { recorder: self, base, row0: 0, rows, row_step: 1, col0: 0, cols }
    }

    /// Brings a resident matrix into this recording.
    pub fn resident(&self, resident: &Resident) -> Tensor<'_> {
        let bands = resident
            .bands
            .iter()
            .enumerate()
            .map(|(i, band)| BandBuffer {
                row0: band.row0,
                rows: band.rows,
                buffer: BufferRef::Resident(resident.id, i as u32),
            })
            .collect();
        let mut inner = self.inner.borrow_mut();
        let base = inner.bases.len() as u32;
        inner.bases.push(Base {
            label: resident.label.to_string(),
            cols: resident.cols,
            halo: 0,
            chunk: None,
            is_f16: false,
            bands,
        });
        Tensor {
            recorder: self,
            base,
            row0: 0,
            rows: resident.rows,
            row_step: 1,
            col0: 0,
            cols: resident.cols,
        }
    }

    /// Appends a kernel launch.
    #[track_caller]
    pub fn dispatch(&self, mut dispatch: Dispatch) {
        assert!(
            dispatch.groups.iter().all(|&g| (1..=MAX_WORKGROUPS).contains(&g)),
            "{}: {:?} workgroups, WebGPU allows 1 to {MAX_WORKGROUPS} in each dimension",
            dispatch.label,
            dispatch.groups
        );
        dispatch.label = self.label(&dispatch.label);
        self.inner.borrow_mut().commands.push(Command::Dispatch(dispatch));
    }

    /// Notes what an op computes.
    pub fn note(&self, work: Work) {
        self.inner.borrow_mut().works.push(work);
    }

    /// The buffer of one shard of a weight.
    pub fn shard(&self, weight: &PackedWeight, shard: usize) -> BufferRef {
        BufferRef::Resident(weight.id, shard as u32)
    }

    pub(crate) fn base(&self, index: u32) -> Ref<'_, Base> {
        Ref::map(self.inner.borrow(), |inner| &inner.bases[index as usize])
    }

    /// Ends the recording.
    pub fn finish(self, label: &str) -> Recording {
        let inner = self.inner.into_inner();
        Recording {
            label: label.to_owned(),
            commands: inner.commands,
            temp_bytes: inner.temp_bytes,
            temp_labels: inner.temp_labels,
            works: inner.works,
        }
    }
}

/// Folds a one-dimensional count of workgroups into x and y, as WebGPU allows 65,535 in each.
/// The kernel rebuilds the index as `x + y * num_workgroups.x` and checks it against its own count.
pub fn fold_groups(count: usize) -> [u32; 3] {
    let count = count.max(1);
    let y = count.div_ceil(MAX_WORKGROUPS as usize);
    let x = count.div_ceil(y);
    [x as u32, y as u32, 1]
}
