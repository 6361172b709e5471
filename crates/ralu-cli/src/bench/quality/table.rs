//! The summary as a table, for a terminal and as Markdown.

use super::results::{Mean, Results, Subject, Summary};

const HEADINGS: [&str; 10] = [
    "setting",
    "steps",
    "TFLOPs",
    "with attention",
    "seconds",
    "speed-up",
    "predicted",
    "PSNR dB",
    "SSIM",
    "latent distance",
];

/// A table in columns, with a line above that says what was measured where.
pub fn text(results: &Results) -> String {
    let rows = rows(results);
    let widths = widths(&rows);
    let mut out = describe(&results.subject);
    for row in rows {
        out.push('\n');
        out.push_str(aligned(&row, &widths).join("  ").trim_end());
    }
    out
}

/// The same as Markdown.
pub fn markdown(results: &Results) -> String {
    let mut rows = rows(results);
    for row in &mut rows {
        row[0] = row[0].replace('|', "\\|");
    }
    let widths = widths(&rows);
    let mut out = format!("{}\n", describe(&results.subject));
    for (i, row) in rows.iter().enumerate() {
        out.push_str(&format!("\n| {} |", aligned(row, &widths).join(" | ")));
        if i == 0 {
            // Names to the left, numbers to the right.
            out.push_str(&format!("\n| {} |", "-".repeat(widths[0])));
            for width in &widths[1..] {
                out.push_str(&format!(" {}: |", "-".repeat(width - 1)));
            }
        }
    }
    out.push_str(
        "\n\nSteps are those in which the network was evaluated. Seconds are medians over pictures; speed-ups are relative to the reference, predicted ones by operations \
         with attention. PSNR, SSIM and the distance of the final latents compare each picture with the reference of \
         the same prompt and seed: means, ± standard error.\n",
    );
    out
}

fn describe(subject: &Subject) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    format!(
        "{} ({}), {}, {} x {}, {}, {}, reference: {}",
        subject.adapter,
        subject.backend,
        subject.model,
        subject.width,
        subject.height,
        count(subject.prompts.len(), "prompt"),
        count(subject.seeds.len(), "seed"),
        count(subject.reference_steps, "plain step"),
    )
}

type Row = [String; HEADINGS.len()];

fn rows(results: &Results) -> Vec<Row> {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(results.summary.iter().map(row));
    rows
}

fn row(summary: &Summary) -> Row {
    let mean = |mean: Option<Mean>, digits: usize| match mean {
        Some(mean) => format!("{:.digits$}", mean.mean),
        None => "-".to_owned(),
    };
    let psnr = match summary.psnr_db {
        Some(Mean { mean, standard_error: Some(error) }) => format!("{mean:.2} ± {error:.2}"),
        other => mean(other, 2),
    };
    [
        summary.name.clone(),
        steps(summary),
        significant(summary.tflops.linear),
        significant(summary.tflops.with_attention),
        significant(summary.median_seconds),
        format!("{:.2}x", summary.speedup),
        format!("{:.2}x", summary.predicted_speedup),
        psnr,
        mean(summary.ssim, 4),
        mean(summary.latent_distance, 4),
    ]
}

/// Steps in which the network was evaluated, and of how many if a temporal cache stood in for it.
fn steps(summary: &Summary) -> String {
    let computed = summary.computed_steps;
    // Rules that look at values reuse more in one picture than in another.
    let digits = usize::from(computed.fract() != 0.0);
    match summary.computed_steps + summary.reused_steps {
        all if all > computed => format!("{computed:.digits$} of {all:.0}"),
        _ => format!("{computed:.digits$}"),
    }
}

/// Three digits that mean something, and all before the point.
fn significant(number: f64) -> String {
    // The logarithm of 0 is cast to the smallest number.
    let before = number.abs().log10().floor() as i32;
    let digits = 2_i32.saturating_sub(before).clamp(0, 9) as usize;
    format!("{number:.digits$}")
}

fn widths(rows: &[Row]) -> [usize; HEADINGS.len()] {
    std::array::from_fn(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0))
}

fn aligned(row: &Row, widths: &[usize; HEADINGS.len()]) -> Vec<String> {
    let cell = |(i, (cell, &width)): (usize, (&String, &usize))| {
        if i == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    };
    row.iter().zip(widths).enumerate().map(cell).collect()
}
