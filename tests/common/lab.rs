//! A GPU with a store: everything that a test of one op needs.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use ralu::gpu::{Gpu, Program, SlotPool, Store};
use ralu::tensor::{
    Blocks, Caps, Command, F16Range, Fallbacks, PackedWeight, Recorder, Recording, Resident,
    ResidentIds, Storage, Tensor, row_pieces,
};

use super::open;
use super::view::{Bands, Frame, GUARD, View};
use super::weights::{pack, pack_rows};

/// The GPU, what was made on it, and the memory that recordings share.
pub struct Lab {
    pub gpu: Gpu,
    pub store: Store,
    pub ids: ResidentIds,
    pub pool: SlotPool,
    /// Whether a product of the last run met numbers beyond f16, which it rounds to.
    pub beyond_f16: Cell<bool>,
    fallbacks: RefCell<Fallbacks>,
    created: RefCell<Vec<ralu::tensor::ResidentId>>,
}

impl Lab {
    pub async fn new() -> Lab {
        Lab {
            gpu: open().await,
            store: Store::default(),
            ids: ResidentIds::default(),
            pool: SlotPool::default(),
            beyond_f16: Cell::default(),
            fallbacks: RefCell::default(),
            created: RefCell::default(),
        }
    }

    /// The same device, pretending to have other capabilities.
    pub fn with_caps(self, change: impl FnOnce(&mut Caps)) -> Lab {
        Lab { gpu: self.gpu.with_caps(change), ..self }
    }

    pub fn caps(&self) -> Caps {
        self.gpu.caps()
    }

    /// Frees what the last case created, so that a table of cases needs the memory of one.
    pub fn clear(&self) {
        self.created.borrow_mut().drain(..).for_each(|id| self.store.free(id));
        self.pool.clear();
        self.fallbacks.take();
    }

    /// Has kernels that round to f16 do what a run has them do after they met numbers beyond it, until [`Lab::clear`].
    pub fn fall_back(&self) {
        let block = Blocks::from([F16Range::AROUND.to_owned()]);
        self.fallbacks.borrow_mut().raise(&block);
    }

    /// A resident matrix without a frame. `single` keeps it in one buffer whatever the capabilities say.
    pub async fn matrix(
        &self,
        label: &str,
        rows: usize,
        cols: usize,
        values: &[f32],
        bands: Bands,
    ) -> Resident {
        let limit = match bands {
            Bands::One => u64::MAX,
            Bands::AsNeeded => self.caps().max_binding_bytes,
        };
        let resident = self.ids.matrix(label, rows, cols, limit);
        self.created.borrow_mut().push(resident.id);
        let written = async {
            self.store.create(&self.gpu, &resident).await?;
            self.store.write(&self.gpu, &resident, values).await
        };
        written.await.unwrap_or_else(|error| panic!("{label}: {error}"));
        resident
    }

    /// `[1, N]`, padded with zeros to a multiple of 4: a bias.
    pub async fn vector(&self, label: &str, values: &[f32]) -> Resident {
        let mut values = values.to_vec();
        values.resize(values.len().next_multiple_of(4), 0.0);
        self.matrix(label, 1, values.len(), &values, Bands::One).await
    }

    /// `values` `[rows, cols]` as a view into a larger matrix of [`GUARD`] words.
    pub async fn view(
        &self,
        label: &str,
        [rows, cols]: [usize; 2],
        values: &[f32],
        frame: Frame,
        bands: Bands,
    ) -> View {
        assert_eq!(values.len(), rows * cols, "{label}: wrong number of values");
        let all_rows = frame.above + frame.span(rows) + frame.below;
        let all_cols = frame.left + cols + frame.right;
        let mut words = vec![f32::from_bits(GUARD); all_rows * all_cols];
        for (row, values) in values.chunks_exact(cols).enumerate() {
            let at = (frame.above + row * frame.step) * all_cols + frame.left;
            words[at..at + cols].copy_from_slice(values);
        }
        let resident = self.matrix(label, all_rows, all_cols, &words, bands).await;
        View { resident, rows, cols, frame }
    }

    /// Uploads a weight `[N, K]`; its numbers should have been through [`round`].
    pub async fn weight(
        &self,
        label: &str,
        values: &[f32],
        n: usize,
        k: usize,
        storage: Storage,
    ) -> PackedWeight {
        self.upload(label, [n, k], storage, |weight| pack(weight, values)).await
    }

    /// Uploads a weight `[N, K]` that is kept in blocks, from rows as a file has them and, of NF4, words of blocks' scales.
    pub async fn blocks(
        &self,
        label: &str,
        (rows, scales): (&[u8], &[u32]),
        shape: [usize; 2],
        storage: Storage,
    ) -> PackedWeight {
        self.upload(label, shape, storage, |weight| pack_rows(weight, rows, scales)).await
    }

    /// Uploads a weight `[N, K]` of the bytes that `pack` makes for each shard.
    pub async fn upload(
        &self,
        label: &str,
        [n, k]: [usize; 2],
        storage: Storage,
        pack: impl FnOnce(&PackedWeight) -> Vec<Vec<u8>>,
    ) -> PackedWeight {
        let limit = self.caps().max_binding_bytes;
        let weight = PackedWeight::new(&self.ids, label, n, k, storage, limit);
        self.created.borrow_mut().push(weight.id);
        let written = async {
            self.store.create_packed(&self.gpu, &weight).await?;
            for (i, bytes) in pack(&weight).iter().enumerate() {
                self.store.write_bytes(&self.gpu, weight.id, i, 0, bytes).await?;
            }
            Ok::<_, ralu::gpu::Error>(())
        };
        written.await.unwrap_or_else(|error| panic!("{label}: {error}"));
        weight
    }

    /// Records, compiles and runs once.
    pub async fn run(&self, record: impl FnOnce(&Recorder, &mut Copies)) -> Recording {
        let range = match self.caps().rounds_to_f16() {
            false => None,
            true => {
                let zeros = [0.0; F16Range::FLAGS];
                let flags = self.matrix("flags", 1, zeros.len(), &zeros, Bands::One).await;
                Some(Arc::new(F16Range::new(flags, self.fallbacks.borrow().clone())))
            }
        };
        let recorder = Recorder::with_f16_range(self.caps(), range.clone());
        let mut copies = Copies::default();
        record(&recorder, &mut copies);
        let mut recording = recorder.finish("test");
        recording.commands.splice(0..0, copies.first);
        recording.commands.extend(copies.last);
        let ran = async {
            let program = Program::compile(&self.gpu, &self.store, &self.pool, &recording).await?;
            program.run(&self.gpu).await
        };
        ran.await.unwrap_or_else(|error| panic!("{error}"));
        self.beyond_f16.set(match range {
            Some(range) => !range.beyond(&self.read(range.flags()).await).is_empty(),
            None => false,
        });
        recording
    }

    /// Reads a matrix.
    pub async fn read(&self, resident: &Resident) -> Vec<f32> {
        let values = self.store.read(&self.gpu, resident).await;
        values.unwrap_or_else(|error| panic!("{}: {error}", resident.label))
    }

    /// Reads a view, and checks that nothing around it was written.
    pub async fn read_view(&self, view: &View) -> Vec<f32> {
        let words = self.read(&view.resident).await;
        let (frame, stride) = (view.frame, view.resident.cols);
        let mut values = Vec::with_capacity(view.rows * view.cols);
        for (i, word) in words.iter().enumerate() {
            let (row, col) = (i / stride, i % stride);
            let inside = (frame.above..frame.above + frame.span(view.rows)).contains(&row)
                && (row - frame.above).is_multiple_of(frame.step)
                && (frame.left..frame.left + view.cols).contains(&col);
            if inside {
                values.push(*word);
            } else {
                assert_eq!(
                    word.to_bits(),
                    GUARD,
                    "{}: wrote {word} outside its view, at row {row}, column {col} of [{}, {stride}]; \
                     the view is rows {}..{} by {}, columns {}..{}",
                    view.resident.label,
                    words.len() / stride,
                    frame.above,
                    frame.above + frame.span(view.rows),
                    frame.step,
                    frame.left,
                    frame.left + view.cols
                );
            }
        }
        values
    }
}

/// Copies of whole matrices before and after what is recorded: into pictures and out of them, as only
/// temporaries can be pictures in bands.
#[derive(Default)]
pub struct Copies {
    first: Vec<Command>,
    last: Vec<Command>,
}

impl Copies {
    pub fn before(&mut self, from: Tensor<'_>, to: Tensor<'_>) {
        self.first.extend(copy(from, to));
    }

    pub fn after(&mut self, from: Tensor<'_>, to: Tensor<'_>) {
        self.last.extend(copy(from, to));
    }
}

fn copy(from: Tensor<'_>, to: Tensor<'_>) -> Vec<Command> {
    assert_eq!((from.cols(), from.cols()), (from.row_stride(), to.row_stride()), "not contiguous");
    row_pieces(&[from, to], usize::MAX)
        .iter()
        .map(|piece| {
            let [(src, src_at), (dst, dst_at)] = [piece.at[0], piece.at[1]];
            Command::Copy {
                src,
                src_offset: src_at as u64 * 4,
                dst,
                dst_offset: dst_at as u64 * 4,
                bytes: (piece.rows * from.cols() * 4) as u64,
            }
        })
        .collect()
}
