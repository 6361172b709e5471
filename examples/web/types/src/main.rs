//! Writes the part of `package/ralu.d.ts` that follows from the library's types: requests and events.
//!
//! `cargo run -p ralu-web-types` writes the file; its test says whether that is needed.

mod typescript;

use std::path::{Path, PathBuf};

use ralu::names;
use ralu::pipeline::{Event, Mask, Request};
use ralu::sampling::{CustomStages, RuleOverrides};
use schemars::generate::SchemaSettings;
use serde_json::Value;
use typescript::{Field, comment, fields, object};

const BEGIN: &str = "// ---- made from the library's types by `cargo run -p ralu-web-types` ----\n";
const END: &str = "// ---- end of what is made ----\n";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = package_types();
    let text = std::fs::read_to_string(&path)?;
    std::fs::write(&path, with_types(&text)?)?;
    Ok(())
}

fn package_types() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../package/ralu.d.ts")
}

/// The file with its generated part as it should be.
fn with_types(text: &str) -> Result<String, String> {
    let missing =
        |line: &str| format!("{}: the line {line:?} is missing", package_types().display());
    let (before, rest) = text.split_once(BEGIN).ok_or_else(|| missing(BEGIN))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| missing(END))?;
    Ok(format!("{before}{BEGIN}\n{}\n{}\n{END}{after}", request(), events()))
}

/// What a type is in JSON.
fn schema<T: schemars::JsonSchema>() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

fn request() -> String {
    let orders = [
        names::of_fields::<Request>(),
        names::of_fields::<RuleOverrides>(),
        names::of_fields::<CustomStages>(),
        names::of_fields::<Mask>(),
    ];
    let schema = schema::<Request>();
    let mut fields = fields(&schema, &orders);
    for field in &mut fields {
        // Bytes have types of their own.
        if field.name == "mask" {
            let bytes = "luma: Uint8Array | Uint8ClampedArray | number[]";
            field.kind = field.kind.replace("luma: number[]", bytes);
        }
    }
    fields.push(Field {
        name: "given".to_owned(),
        kind: "Record<string, Tensor>".to_owned(),
        is_optional: true,
        docs: "Tensors that replace what the run would draw or compute, under the names that the tensors of a picture \
               have: `initial_noise`, `ralu_noise_stage2`, `ralu_noise_stage3`, `prompt_embeds`, \
               `pooled_prompt_embeds`, both with `negative_` before their names, and `ralu_selected`. Others are left \
               alone."
            .to_owned(),
    });
    fields.push(Field {
        name: "estimates".to_owned(),
        kind: "boolean".to_owned(),
        is_optional: true,
        docs: "Show after every step what the run has in mind: the event `estimate`.".to_owned(),
    });
    fields.push(Field {
        name: "signal".to_owned(),
        kind: "AbortSignal".to_owned(),
        is_optional: true,
        docs: "Ends the run within a step.".to_owned(),
    });
    let docs = "What to make. Whatever is left out is the model's own.";
    format!("{}export interface GenerateRequest {}\n", comment(docs, ""), object(&fields))
}

/// A field that JavaScript has in a form of its own.
fn adapted(field: Field) -> Field {
    let (name, kind) = match field.name.as_str() {
        "event" => ("type", quoted_camel(&field.kind)),
        "part" | "kind" => (&*field.name, quoted_camel(&field.kind)),
        "selected" => ("selected", "Uint32Array".to_owned()),
        "density" => ("score", "Float32Array".to_owned()),
        // It may have 64 bits.
        "seed" => ("seed", "string".to_owned()),
        _ => return field,
    };
    let name = name.to_owned();
    let docs = if name == "part" { quoted_camel(&field.docs) } else { field.docs };
    Field { name, kind, docs, ..field }
}

fn quoted_camel(kind: &str) -> String {
    let part = |(i, part)| if i % 2 == 1 { names::camel(part) } else { String::from(part) };
    kind.split('"').enumerate().map(part).collect::<Vec<_>>().join("\"")
}

/// What JavaScript adds to an event.
fn added(event: &str) -> Vec<Field> {
    let field = |name: &str, kind: &str, docs: &str| Field {
        name: name.to_owned(),
        kind: kind.to_owned(),
        is_optional: name == "tensors",
        docs: docs.to_owned(),
    };
    match event {
        "stage_picture" => vec![field("picture", "ImageData", "")],
        "image" => vec![
            field("picture", "ImageData", ""),
            field(
                "texts",
                "[keyword: string, text: string][]",
                "What the picture says about itself, as keywords and texts: see `toPng`.",
            ),
            field("tensors", "Record<string, Tensor>", "If the request asks for them."),
        ],
        _ => vec![],
    }
}

fn events() -> String {
    let docs = "What happens in a run. `image` counts pictures from 0, `stage` and `step` from 1. Seconds are wall-clock.";
    let mut written = comment(docs, "");
    written.push_str("export type RaluEvent =");
    let schema = schema::<Event>();
    for event in schema["oneOf"].as_array().into_iter().flatten() {
        let name = event["properties"]["event"]["const"].as_str().unwrap_or_default();
        let mut fields: Vec<Field> = fields(event, &[]).into_iter().map(adapted).collect();
        fields.sort_by_key(|field| field.name != "type");
        fields.extend(added(name));
        written.push('\n');
        written.push_str(&comment(&typescript::text(event), "  "));
        written.push_str(&format!("  | {}", object(&fields).replace('\n', "\n    ")));
    }
    written.push('\n');
    written.push_str(&comment(
        "After a step, if the request asks for `estimates`: the clean estimate in approximate colours.",
        "  ",
    ));
    written.push_str(&format!("  | {}", object(&estimate()).replace('\n', "\n    ")));
    written + ";\n"
}

/// The event that has no JSON.
fn estimate() -> Vec<Field> {
    let field = |(name, kind, docs): (&str, &str, &str)| Field {
        name: name.to_owned(),
        kind: kind.to_owned(),
        is_optional: false,
        docs: docs.to_owned(),
    };
    let fields = [
        ("type", "\"estimate\"", ""),
        ("image", "number", "Number of the picture, from 0."),
        ("stage", "number", "Number of the stage, from 1."),
        ("step", "number", "Number of the step in the stage, from 1."),
        (
            "picture",
            "ImageData",
            "An eighth as wide and as high as what the stage draws, which is half the size in the first.",
        ),
    ];
    fields.map(field).into()
}

#[cfg(test)]
mod tests {
    use super::{package_types, with_types};

    #[test]
    fn the_packages_types_are_those_of_the_library() {
        let text = std::fs::read_to_string(package_types()).expect("the types");
        let expected = with_types(&text).expect("the marks");
        assert!(
            text == expected,
            "out of date; run `cargo run -p ralu-web-types` and look at the difference"
        );
    }
}
