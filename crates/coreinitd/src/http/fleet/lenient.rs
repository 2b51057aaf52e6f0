//! JSON as fleet's server read it: keys in any case, `null` as if the key were not there. Its documentation,
//! its client and its own tests did not agree on the case of keys, and all of them worked.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};

/// Every key of the bodies that fleet's API takes.
const KEYS: [&str; 9] =
    ["currentState", "desiredState", "machineID", "name", "op", "options", "path", "section", "value"];

/// An object or array, which begins with `opening`. The texts for a body that ends too early are fleet's, the
/// others say what is wrong in our words.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8], opening: u8) -> Result<T, String> {
    let said = |error: serde_json::Error| match error.is_eof() {
        true => "unexpected EOF".into(),
        false => error.to_string(),
    };
    match body.trim_ascii_start().first() {
        None => return Err("EOF".into()),
        Some(first) if *first != opening => {
            serde_json::from_slice::<IgnoredAny>(body).map_err(said)?;
            return Err(format!("expected '{}' at the beginning", char::from(opening)));
        }
        Some(_) => {}
    }
    let value: Value = serde_json::from_slice(body).map_err(said)?;
    serde_json::from_value(known_keys(value)).map_err(|error| error.to_string())
}

/// The same with known keys in their usual spelling and without nulls. A key that is spelt right wins over
/// one that is not.
fn known_keys(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(known_keys).collect()),
        Value::Object(fields) => {
            let (right, other): (Vec<_>, Vec<_>) =
                fields.into_iter().partition(|(key, _)| KEYS.contains(&key.as_str()));
            let mut known = Map::new();
            for (key, value) in other.into_iter().chain(right).filter(|(_, value)| !value.is_null()) {
                let usual = KEYS.iter().find(|usual| usual.eq_ignore_ascii_case(&key));
                known.insert(usual.map_or(key, |usual| (*usual).into()), known_keys(value));
            }
            Value::Object(known)
        }
        plain => plain,
    }
}

#[cfg(test)]
mod tests {
    use api::fleet::Unit;

    use super::*;

    #[test]
    fn keys_in_any_case_and_nulls() {
        let check = |body: &str, expected: &str| {
            let unit: Unit = decode(body.as_bytes(), b'{').unwrap();
            assert_eq!(serde_json::to_string(&unit).unwrap(), expected, "{body}");
        };
        check(r#"{"DesiredState":"loaded"}"#, r#"{"desiredState":"loaded"}"#);
        check(
            r#"{"Options":[{"Section":"A","NAME":"b","Value":"c"}]}"#,
            r#"{"options":[{"name":"b","section":"A","value":"c"}]}"#,
        );
        check(r#"{"name":"right","Name":"wrong"}"#, r#"{"name":"right"}"#);
        check(r#"{"name":null,"options":null}"#, "{}");
        check(" {\"machineid\":\"m\",\"more\":{\"x\":[1,null]}} ", r#"{"machineID":"m"}"#);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let check = |body: &str, part: &str| {
            let told = decode::<Unit>(body.as_bytes(), b'{').unwrap_err();
            assert!(told.contains(part), "{body}: {told}");
        };
        check("", "EOF");
        check(" \n", "EOF");
        check("{", "unexpected EOF");
        check("[{\"op\":", "unexpected EOF");
        check("[]", "expected '{' at the beginning");
        check("{} x", "trailing characters");
        check(r#"{"desiredState":5}"#, "expected a string");
        check("nonsense", "expected");
    }
}
