//! A job file's text as a tree of values that know where they stand, the same for TOML and JSON.

use crate::Mistake;
use std::ops::Range;

/// A value and where it stands, in bytes of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where.
    pub span: Range<usize>,
    /// What.
    pub value: Value,
    /// What a parameter of the job stands for by itself, where the text is nothing else.
    pub typed: Option<Value>,
}

/// A value of a job file.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// Another number, and how it is written.
    Float(f64, String),
    /// True or false.
    Bool(bool),
    /// A list.
    List(Vec<Node>),
    /// A table (TOML) or object (JSON).
    Table(Vec<Entry>),
    /// Something that no key takes, by its name: a date, a null.
    Other(&'static str),
}

/// One key of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_span: Range<usize>,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// The value for a key that takes no text.
    pub fn typed(&self) -> &Value {
        self.typed.as_ref().unwrap_or(&self.value)
    }
}

impl Value {
    /// A single value as text, numbers as they are written.
    pub fn scalar(&self) -> Option<String> {
        match self {
            Value::Text(text) => Some(text.clone()),
            Value::Int(number) => Some(number.to_string()),
            Value::Float(_, written) => Some(written.clone()),
            Value::Bool(value) => Some(value.to_string()),
            Value::List(_) | Value::Table(_) | Value::Other(_) => None,
        }
    }

    /// The value's kind with its article, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a text",
            Value::Int(_) | Value::Float(..) => "a number",
            Value::Bool(_) => "true or false",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }
}

/// Reads TOML.
pub fn toml(text: &str) -> Result<Node, Vec<Mistake>> {
    use ::toml::de::DeTable;
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let end = text.len();
        // What follows the first error is mostly its consequence.
        return Err(errors
            .iter()
            .take(1)
            .map(|error| {
                let help = if error.message().contains("string values must be quoted") {
                    "texts stand in quotes: \"10s\""
                } else {
                    "a job file is TOML: key = value, texts in \"quotes\", lists in [brackets]"
                };
                Mistake::new(
                    error.span().unwrap_or(end..end),
                    format!("the file is not valid TOML: {}", error.message()),
                    help,
                )
            })
            .collect());
    }
    let span = table.span();
    Ok(Node {
        span,
        value: toml_table(table.into_inner()),
        typed: None,
    })
}

/// Reads JSON.
pub fn json(text: &str) -> Result<Node, Vec<Mistake>> {
    let strict = jsonc_parser::ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let wrong = |span, what: String| {
        vec![Mistake::new(
            span,
            format!("the file is not valid JSON: {what}"),
            "a job file in JSON is one object with the keys of the TOML form",
        )]
    };
    let parsed = jsonc_parser::parse_to_ast(text, &Default::default(), &strict).map_err(|e| {
        let at = e.range();
        wrong(at.start..at.end, lower_first(&e.kind().to_string()))
    })?;
    let Some(value) = parsed.value else {
        return Err(wrong(0..0, "it is empty".to_owned()));
    };
    let mut mistakes = Vec::new();
    let node = json_node(value, &mut mistakes);
    if mistakes.is_empty() {
        Ok(node)
    } else {
        Err(mistakes)
    }
}

fn toml_table(table: ::toml::de::DeTable<'_>) -> Value {
    let mut entries: Vec<Entry> = table
        .into_iter()
        .map(|(key, value)| Entry {
            key_span: key.span(),
            key: key.into_inner().into_owned(),
            node: toml_node(value),
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_span.start);
    Value::Table(entries)
}

fn toml_node(value: ::toml::Spanned<::toml::de::DeValue<'_>>) -> Node {
    use ::toml::de::DeValue;
    let span = value.span();
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("a number out of range"), Value::Int),
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map_or(Value::Other("a number out of range"), |value| {
                Value::Float(value, number.as_str().to_owned())
            }),
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => Value::List(items.into_iter().map(toml_node).collect()),
        DeValue::Table(table) => toml_table(table),
    };
    Node {
        span,
        value,
        typed: None,
    }
}

fn json_node(value: jsonc_parser::ast::Value<'_>, mistakes: &mut Vec<Mistake>) -> Node {
    use jsonc_parser::ast::Value as Json;
    let (range, value) = match value {
        Json::StringLit(text) => (text.range, Value::Text(text.value.into_owned())),
        Json::NumberLit(number) => {
            let whole = number.value.parse().map(Value::Int);
            let number_value = whole.unwrap_or_else(|_| match number.value.parse::<f64>() {
                Ok(value) if value.is_finite() => Value::Float(value, number.value.to_owned()),
                _ => Value::Other("a number out of range"),
            });
            (number.range, number_value)
        }
        Json::BooleanLit(value) => (value.range, Value::Bool(value.value)),
        Json::NullKeyword(null) => (null.range, Value::Other("a null")),
        Json::Array(list) => {
            let items = list.elements.into_iter();
            let items = items.map(|item| json_node(item, mistakes)).collect();
            (list.range, Value::List(items))
        }
        Json::Object(object) => {
            let mut entries: Vec<Entry> = Vec::with_capacity(object.properties.len());
            let mut seen = std::collections::HashSet::new();
            for property in object.properties {
                let key = property.name.as_str().to_owned();
                let start = property.range.start;
                let key_span = start..start + key.len() + 2;
                if !seen.insert(key.clone()) {
                    mistakes.push(Mistake::new(
                        key_span.clone(),
                        format!("the key {key:?} is given twice"),
                        "keep one of them",
                    ));
                }
                entries.push(Entry {
                    key,
                    key_span,
                    node: json_node(property.value, mistakes),
                });
            }
            (object.range, Value::Table(entries))
        }
    };
    Node {
        span: range.start..range.end,
        value,
        typed: None,
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}
