//! What a request says: the form in its body and in its query, as Go reads them.

/// What a plus means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plus {
    Space,
    /// In a path.
    Stays,
}

/// Names and values in order; those of the body first.
#[derive(Debug, Default)]
pub(super) struct Form(Vec<(String, String)>);

/// Names in one form; a change has a dozen at most.
const FIELDS_MAX: usize = 256;

impl Form {
    /// An error's text is etcd's.
    pub fn read(body: &[u8], query: &str) -> Result<Form, String> {
        let mut fields = Vec::new();
        let body = String::from_utf8_lossy(body);
        for pair in body.split('&').chain(query.split('&')).filter(|pair| !pair.is_empty()) {
            if fields.len() == FIELDS_MAX {
                return Err(format!("more than {FIELDS_MAX} fields"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            fields.push((decode(name, Plus::Space)?, decode(value, Plus::Space)?));
        }
        Ok(Form(fields))
    }

    /// The first of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// `None`: there is no such field. An error for one that is no truth value in Go.
    pub fn truth(&self, name: &str) -> Result<Option<bool>, ()> {
        match self.get(name) {
            None => Ok(None),
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(Some(false)),
            Some(_) => Err(()),
        }
    }

    /// 0 when there is no such field.
    pub fn number(&self, name: &str) -> Result<u64, ()> {
        match self.get(name) {
            None => Ok(0),
            // Rust takes a plus, Go does not.
            Some(text) if text.starts_with('+') => Err(()),
            Some(text) => text.parse().map_err(drop),
        }
    }
}

/// Takes the percent signs out. What is no UTF-8 then is shown as such: JSON has no other bytes.
pub(super) fn decode(text: &str, plus: Plus) -> Result<String, String> {
    if !text.contains(['%', '+']) {
        return Ok(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let digits = after.get(..2).and_then(|digits| str::from_utf8(digits).ok());
                let good = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
                let byte = good.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                let shown = || String::from_utf8_lossy(&after[..after.len().min(2)]).into_owned();
                bytes.push(byte.ok_or_else(|| format!("invalid URL escape \"%{}\"", shown()))?);
                rest = &after[2..];
            }
            b'+' if plus == Plus::Space => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_as_go_reads_them() {
        let form = Form::read(b"value=a%20b+c&ttl=5&dir=t&x", "ttl=6&prevIndex=7&a%3Db=%26").unwrap();
        assert_eq!((form.get("value"), form.get("ttl"), form.get("x")), (Some("a b c"), Some("5"), Some("")));
        assert_eq!((form.get("a=b"), form.get("y")), (Some("&"), None));
        assert_eq!(
            (form.truth("dir"), form.truth("y"), form.truth("ttl")),
            (Ok(Some(true)), Ok(None), Err(()))
        );
        assert_eq!((form.number("prevIndex"), form.number("y"), form.number("dir")), (Ok(7), Ok(0), Err(())));
        assert_eq!(Form::read(b"a=%zz", "").unwrap_err(), "invalid URL escape \"%zz\"");
        assert_eq!(Form::read(b"", "a=%4").unwrap_err(), "invalid URL escape \"%4\"");
        assert_eq!(Form::read(b"a=%ff;%C3%A9", "").unwrap().get("a"), Some("\u{fffd};é"));
        assert_eq!(decode("/a+b%2Bc", Plus::Stays).unwrap(), "/a+b+c");
        assert!(Form::read("a&".repeat(FIELDS_MAX + 1).as_bytes(), "").is_err());
    }
}
