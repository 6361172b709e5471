//! The smallest useful program: one sentence in, one PNG out.
//!
//! `cargo run --release --example generate -- "a fox on a purple background" fox.png`

use ralu::gpu::{AdapterChoice, Gpu, block_on};
use ralu::models::source::Folder;
use ralu::pipeline::{Event, Options, Pipeline, Request};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let prompt = arguments.next().unwrap_or("a panda on a pink background".into());
    let file = arguments.next().unwrap_or("picture.png".into());

    let gpu = pollster::block_on(Gpu::open(&AdapterChoice::default()))?;
    eprintln!("{} ({})", gpu.report().name, gpu.report().backend);
    let model = Folder::open(concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-flux"))?;
    let pipeline = Pipeline::open(gpu, Box::new(model), Options::default())?;

    let mut run = pipeline.start(Request::new(prompt).seed(11))?;
    while let Some(event) = block_on(pipeline.gpu(), run.next())? {
        match event {
            Event::Step(step) => {
                eprintln!("stage {} step {} of {}", step.stage, step.step, step.of)
            }
            Event::Image { picture, .. } => {
                let (width, height) = (picture.width as u32, picture.height as u32);
                image::save_buffer(&file, &picture.rgb, width, height, image::ColorType::Rgb8)?;
            }
            _ => {}
        }
    }
    Ok(())
}
