//! `${NAME}` and `${NAME:-text}` in the texts of a settings file.
//!
//! Texts are expanded after the file has been parsed. So nothing in a variable (a quote, a line
//! break) can change the meaning of the file. `$${` stands for a plain `${`.

use toml::{Table, Value};

use super::Variable;

/// Expands all texts in a table. An error names its place.
pub(super) fn table(table: &mut Table, variable: Variable<'_>) -> Result<(), String> {
    for (key, inner) in table.iter_mut() {
        value(inner, variable).map_err(|reason| format!("{key}: {reason}"))?;
    }
    Ok(())
}

fn value(value: &mut Value, variable: Variable<'_>) -> Result<(), String> {
    match value {
        Value::String(text) => {
            *text = expand(text, variable)?;
            Ok(())
        }
        Value::Array(all) => all.iter_mut().try_for_each(|one| self::value(one, variable)),
        Value::Table(inner) => table(inner, variable),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => Ok(()),
    }
}

fn expand(text: &str, variable: Variable<'_>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &from[2..];
            continue;
        }
        let end = from.find('}').ok_or_else(|| format!("\"{from}\" has no closing brace"))?;
        out.push_str(before);
        out.push_str(&one(&from[2..end], variable)?);
        rest = &from[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Expands the text between the braces.
fn one(inner: &str, variable: Variable<'_>) -> Result<String, String> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !valid {
        return Err(format!("\"{name}\" is not the name of a variable"));
    }
    // As in a shell, ":-" also replaces an empty variable.
    let set = variable(name).filter(|value| default.is_none() || !value.is_empty());
    set.or_else(|| default.map(str::to_owned)).ok_or_else(|| {
        format!("the variable {name} is not set: set it, or write ${{{name}:-default}}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/root".to_owned()),
            "QUOTE" => Some("a\"b\n[x]".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_put_in() {
        for (text, expanded) in [
            ("plain $5 {x}", "plain $5 {x}"),
            ("${HOME}", "/root"),
            ("a${HOME}b${HOME:-x}c", "a/rootb/rootc"),
            ("${NONE:-}", ""),
            ("${NONE:-a:-b}", "a:-b"),
            ("${EMPTY}|${EMPTY:-x}", "|x"),
            ("$${HOME} ${HOME}", "${HOME} /root"),
            ("${QUOTE}", "a\"b\n[x]"),
        ] {
            assert_eq!(expand(text, &variable), Ok(expanded.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("${NONE}", "the variable NONE is not set"),
            ("${HOME", "no closing brace"),
            ("${}", "not the name"),
            ("${a b}", "not the name"),
        ] {
            let reason = expand(text, &variable).expect_err(text);
            assert!(reason.contains(said), "{text}: {reason}");
        }
    }
}
