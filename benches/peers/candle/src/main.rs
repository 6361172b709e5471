//! candle on the CPU as a racer: what a processor does without a graphics driver in between.

use candle_core::{DType, Device, Tensor};
use candle_nn::attention::{AttnMask, flash_attn};
use race::case::{Case, Weights};
use race::expected::{QUERY_SCALE, weight_scale};
use race::numbers::{self, Operand};
use race::protocol::{Hello, Racer, serve};

type Result<T, E = String> = std::result::Result<T, E>;
/// One computation of a case.
type Once = Box<dyn Fn() -> candle_core::Result<Tensor>>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn main() -> std::io::Result<()> {
    let hello = Hello {
        version: format!("candle {}", env!("RACE_CANDLE_CORE")),
        device: format!("CPU ({})", std::env::consts::ARCH),
    };
    serve(&hello, &mut Candle { case: None })
}

struct Candle {
    case: Option<Prepared>,
}

struct Prepared {
    once: Once,
    last: Option<Tensor>,
    /// Axes of the result in the case's layout.
    order: &'static [usize],
}

fn operand(operand: Operand, shape: &[usize], scale: f32) -> candle_core::Result<Tensor> {
    let values = numbers::vector(operand, shape.iter().product(), scale);
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// The way that needs less processor time.
fn faster(ways: Vec<(&'static str, Once)>) -> Result<(&'static str, Once)> {
    let mut best: Option<(f64, &'static str, Once)> = None;
    for (name, once) in ways {
        once().map_err(text)?;
        let start = race::usage::cpu_seconds();
        once().map_err(text)?;
        let seconds = race::usage::cpu_seconds() - start;
        if best.as_ref().is_none_or(|(least, ..)| seconds < *least) {
            best = Some((seconds, name, once));
        }
    }
    best.map(|(_, name, once)| (name, once)).ok_or_else(|| "no way to do it".into())
}

fn prepared(case: &Case) -> candle_core::Result<Result<(String, Once, &'static [usize])>> {
    Ok(Ok(match *case {
        Case::Matmul { m, k, n, weights } => {
            let mut x = operand(Operand::X, &[m, k], 1.0)?;
            let mut w = operand(Operand::W, &[n, k], weight_scale(k))?;
            let mut note = "";
            if weights == Weights::F16 {
                (x, w, note) = (x.to_dtype(DType::F16)?, w.to_dtype(DType::F16)?, "f16 x f16");
            }
            (note.into(), Box::new(move || x.matmul(&w.t()?)), &[0, 1])
        }
        Case::Attention { tokens, heads, head_dim } => {
            let shape = [1, tokens, heads, head_dim];
            let [q, k, v] = [
                operand(Operand::X, &shape, QUERY_SCALE)?,
                operand(Operand::W, &shape, QUERY_SCALE)?,
                operand(Operand::V, &shape, 1.0)?,
            ];
            let scale = 1.0 / (head_dim as f64).sqrt();
            let rows = |t: &Tensor| t.transpose(1, 2)?.contiguous();
            let [qh, kh, vh] = [rows(&q)?, rows(&k)?, rows(&v)?];
            // As candle's FLUX has it.
            let formula = move || {
                let scores = (qh.matmul(&kh.t()?)? * scale)?;
                candle_nn::ops::softmax_last_dim(&scores)?.matmul(&vh)
            };
            let flash =
                move || flash_attn::<f32>(&q, &k, &v, scale as f32, AttnMask::None, None, None);
            let mut ways: Vec<(&'static str, Once)> = vec![("flash_attn", Box::new(flash))];
            if tokens <= 2048 {
                ways.push(("matmul and softmax", Box::new(formula)));
            }
            match faster(ways) {
                Ok((note, once)) => (note.into(), once, &[0, 2, 1, 3]),
                Err(error) => return Ok(Err(error)),
            }
        }
        Case::Conv2d { height, width, input, output } => {
            let x = operand(Operand::X, &[1, height, width, input], 1.0)?;
            let x = x.permute((0, 3, 1, 2))?.contiguous()?;
            let w = operand(Operand::W, &[output, input, 3, 3], weight_scale(9 * input))?;
            (String::new(), Box::new(move || x.conv2d(&w, 1, 1, 1, 1)), &[0, 2, 3, 1])
        }
        Case::Blocks { .. } | Case::Picture { .. } => {
            return Ok(Err("not run: torch is the CPU's reference for networks".into()));
        }
    }))
}

impl Racer for Candle {
    fn prepare(&mut self, case: &Case) -> Result<String> {
        let (note, once, order) = prepared(case).map_err(text)??;
        self.case = Some(Prepared { once, last: None, order });
        Ok(note)
    }

    fn run(&mut self, repeats: usize) -> Result<()> {
        let case = self.case.as_mut().ok_or("nothing is prepared")?;
        for _ in 0..repeats {
            case.last = Some((case.once)().map_err(text)?);
        }
        Ok(())
    }

    fn result(&mut self) -> Result<Vec<f32>> {
        let case = self.case.as_ref().ok_or("nothing is prepared")?;
        let last = case.last.as_ref().ok_or("nothing has run")?;
        let ordered = last.permute(case.order).and_then(|y| y.to_dtype(DType::F32));
        ordered.and_then(|y| y.flatten_all()?.to_vec1()).map_err(text)
    }

    fn free(&mut self) {
        self.case = None;
    }
}
