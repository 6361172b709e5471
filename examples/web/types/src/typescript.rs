//! TypeScript's types from JSON schemas.

use ralu::names;
use serde_json::{Map, Value};

/// Longest line of a comment.
const COLUMNS: usize = 118;

/// A field of an object.
pub struct Field {
    /// As JavaScript spells it.
    pub name: String,
    /// `number`, `"a" | "b"`, …
    pub kind: String,
    /// Whether it may be left out.
    pub is_optional: bool,
    /// What it is, in Markdown.
    pub docs: String,
}

/// The fields of an object's schema, ordered as `orders` name them: the list that has all of them counts.
pub fn fields(schema: &Value, orders: &[&[&str]]) -> Vec<Field> {
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let required: Vec<&str> = strings(&schema["required"]).collect();
    let order =
        orders.iter().find(|order| properties.keys().all(|name| order.contains(&name.as_str())));
    let order = order.copied().unwrap_or(&required);
    let place = |name: &str| order.iter().position(|known| *known == name);
    let mut names: Vec<&String> = properties.keys().collect();
    names.sort_by_key(|name| place(name));
    let field = |name: &&String| {
        let schema = &properties[*name];
        Field {
            name: names::camel(name),
            kind: kind(schema, orders),
            is_optional: !required.contains(&name.as_str()),
            docs: docs(schema),
        }
    };
    names.iter().map(field).collect()
}

/// A type: what a schema's values are, without the null of what is optional.
fn kind(schema: &Value, orders: &[&[&str]]) -> String {
    if let Some(written) = schema["x-typescript"].as_str() {
        return written.to_owned();
    }
    if let Some(value) = schema.get("const") {
        return value.to_string();
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> = values.iter().filter(|v| !v.is_null()).map(Value::to_string).collect();
        return values.join(" | ");
    }
    for one in ["anyOf", "oneOf"] {
        if let Some(schemas) = schema[one].as_array() {
            let kinds: Vec<String> = schemas.iter().map(|schema| kind(schema, orders)).collect();
            return kinds.into_iter().filter(|kind| kind != "null").collect::<Vec<_>>().join(" | ");
        }
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        several => strings(several).filter(|name| *name != "null").collect(),
    };
    match types[..] {
        ["object"] => object(&fields(schema, orders)),
        ["array"] => match kind(&schema["items"], orders) {
            items if items.contains(' ') => format!("({items})[]"),
            items => format!("{items}[]"),
        },
        ["integer" | "number"] => "number".to_owned(),
        [name] => name.to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// A field's own text, and the names that it may have.
fn docs(schema: &Value) -> String {
    let mut docs = text(schema);
    let choices = ["anyOf", "oneOf"].iter().flat_map(|one| schema[*one].as_array()).flatten();
    let nested = choices.clone().flat_map(|choice| choice["oneOf"].as_array()).flatten();
    let named: Vec<String> = choices
        .chain(nested)
        .filter_map(|choice| Some((choice.get("const")?, text(choice))))
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| format!("- {name}: {}", first_sentence(&text)))
        .collect();
    if !named.is_empty() {
        docs = format!("{docs}\n\n{}", named.join("\n"));
    }
    docs
}

/// What a schema says of itself, with links as plain names.
pub fn text(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    // The ends of links.
    let lines = text.lines().filter(|line| !line.starts_with("[`"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let mut plain = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("[`") {
        let Some((link, after)) = after.split_once("`]") else { break };
        let name = link.rsplit("::").next().unwrap_or(link);
        plain.push_str(&format!("{before}`{name}`"));
        rest = after;
    }
    (plain + rest).trim().to_owned()
}

fn first_sentence(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.split_once(". ") {
        Some((first, _)) => format!("{first}."),
        None => text,
    }
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// An object's type, in lines that are indented from the second on.
pub fn object(fields: &[Field]) -> String {
    let mut written = String::from("{\n");
    for field in fields {
        written.push_str(&comment(&field.docs, "  "));
        let optional = if field.is_optional { "?" } else { "" };
        let kind = field.kind.replace('\n', "\n  ");
        written.push_str(&format!("  {}{optional}: {kind};\n", field.name));
    }
    written + "}"
}

/// A comment of documentation, whose lines begin with `indent`; nothing if there is nothing to say.
pub fn comment(docs: &str, indent: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in docs.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        // An item of a list stays one.
        let mut parts: Vec<String> = Vec::new();
        for line in paragraph.lines() {
            match parts.last_mut() {
                Some(part) if !line.starts_with("- ") => *part = format!("{part} {}", line.trim()),
                _ => parts.push(line.trim().to_owned()),
            }
        }
        for part in &parts {
            let hanging = if part.starts_with("- ") { "  " } else { "" };
            lines.extend(wrapped(part, COLUMNS - indent.len() - " * ".len(), hanging));
        }
    }
    match &lines[..] {
        [] => String::new(),
        [line] if line.len() + indent.len() + "/**  */".len() <= COLUMNS => {
            format!("{indent}/** {line} */\n")
        }
        _ => {
            let lines: String = lines
                .iter()
                .map(|line| format!("{}\n", format!("{indent} * {line}").trim_end()))
                .collect();
            format!("{indent}/**\n{lines}{indent} */\n")
        }
    }
}

fn wrapped(text: &str, columns: usize, hanging: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= columns {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(format!("{hanging}{word}"));
        }
    }
    lines
}
