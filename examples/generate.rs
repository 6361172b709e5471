//! The smallest useful program: one sentence in, one PNG out.
//!
//! `cargo run --release --example generate -- "a fox on a purple background" fox.png`

use ralu::{AdapterChoice, Event, Folder, Gpu, Options, Picture, Pipeline, Request};

pub async fn draw(request: Request) -> Result<Picture, Box<dyn std::error::Error>> {
    let gpu = Gpu::open(&AdapterChoice::default()).await?;
    let model = Folder::open("models/tiny-flux")?;
    let pipeline = Pipeline::open(gpu, Box::new(model), Options::default())?;
    let mut run = pipeline.start(request)?;
    while let Some(event) = run.next().await? {
        match event {
            Event::Step(step) => println!("stage {}: {} of {}", step.stage, step.step, step.of),
            Event::Image { picture, .. } => return Ok(picture),
            _ => {}
        }
    }
    Err("the run ended without a picture".into())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let prompt = arguments.next().unwrap_or("a panda on a pink background".into());
    let file = arguments.next().unwrap_or("picture.png".into());

    let picture = pollster::block_on(draw(Request::new(prompt).seed(11)))?;
    let (width, height) = (picture.width as u32, picture.height as u32);
    image::save_buffer(&file, &picture.rgb, width, height, image::ColorType::Rgb8)?;
    Ok(())
}
