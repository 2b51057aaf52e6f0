//! From a request to what it asks for. In which order its fields are looked at, and which words they are
//! refused in, is etcd 3.4's.

use std::sync::Arc;

use axum::http::Method;
use cluster::{KeyChange, KeyEnd, KeyPath, KeyWas};

use super::answer::{Code, Fault};
use super::form::Form;

/// No key ends after the year 9999, which is the last that can be written down.
const END_MAX: u64 = 253_402_300_799_000;

#[derive(Debug, PartialEq)]
pub(super) enum Asked {
    Read(Read),
    Watch(Watch),
    Write {
        change: KeyChange,
        /// A good answer holds the action alone.
        terse: bool,
    },
}

#[derive(Debug, PartialEq)]
pub(super) struct Read {
    pub path: KeyPath,
    pub recursive: bool,
    /// All that was acknowledged anywhere before must be in the answer.
    pub quorum: bool,
}

#[derive(Debug, PartialEq)]
pub(super) struct Watch {
    pub path: KeyPath,
    pub recursive: bool,
    /// It goes on after the first event.
    pub stream: bool,
    /// 0: from now on.
    pub since: u64,
}

/// At `now`, in milliseconds since 1970.
pub(super) fn asked(key: &str, method: &Method, form: &Form, now: u64) -> Result<Asked, Fault> {
    let path = KeyPath::new(key).map_err(|error| Fault::field(error.to_string()))?;
    let not_a_number = |name: &str| {
        let code = if name == "ttl" { Code::TtlNotANumber } else { Code::IndexNotANumber };
        Fault::of_form(code, format!("invalid value for \"{name}\""))
    };
    let number = |name: &str| form.number(name).map_err(|()| not_a_number(name));
    let truth = |name: &str| {
        let fault = |()| Fault::field(format!("invalid value for \"{name}\""));
        form.truth(name).map_err(fault).map(Option::unwrap_or_default)
    };
    let (index, since) = (number("prevIndex")?, number("waitIndex")?);
    let (recursive, _sorted, wait) = (truth("recursive")?, truth("sorted")?, truth("wait")?);
    let (dir, quorum, stream) = (truth("dir")?, truth("quorum")?, truth("stream")?);
    if wait && method != Method::GET {
        return Err(Fault::field("\"wait\" can only be used with GET requests".into()));
    }
    let was = form.get("prevValue");
    if was == Some("") {
        return Err(Fault::of_form(Code::PrevValueRequired, "\"prevValue\" cannot be empty".into()));
    }
    let was = KeyWas { value: was.unwrap_or_default().into(), index };
    let is_compared = was != KeyWas::default();
    let terse = truth("noValueOnSuccess")?;
    let ttl = match form.get("ttl") {
        None | Some("") => None,
        Some(_) => Some(number("ttl")?),
    };
    // These two without quotes, as etcd has it.
    let bare = |name: &str| form.truth(name).map_err(|()| Fault::field(format!("invalid value for {name}")));
    let exists = bare("prevExist")?;
    let refresh = bare("refresh")?.unwrap_or_default();
    let value = form.get("value").unwrap_or_default();
    if refresh && !value.is_empty() {
        return Err(Fault::of_form(Code::RefreshValue, "A value was provided on a refresh".into()));
    }
    if refresh && ttl.is_none() {
        return Err(Fault::of_form(Code::RefreshWithoutTtl, "No TTL value set".into()));
    }
    let expires = ttl.map(|ttl| now.saturating_add(ttl.saturating_mul(1000)).min(END_MAX));
    let end = match expires {
        None => KeyEnd::Never,
        Some(at) if refresh => KeyEnd::Refresh(at),
        Some(at) => KeyEnd::At(at),
    };
    let new = || (!dir).then(|| Arc::from(value));
    let change = match *method {
        Method::PUT => match exists {
            Some(true) if !is_compared => KeyChange::Update { path, value: value.into(), end },
            Some(false) => KeyChange::Create { path, value: new(), expires },
            None if !is_compared => KeyChange::Set { path, value: new(), end },
            Some(true) | None => KeyChange::CompareAndSwap { path, was, value: value.into(), end },
        },
        Method::POST => KeyChange::CreateInOrder { path, value: new(), expires },
        Method::DELETE if is_compared => KeyChange::CompareAndDelete { path, was },
        Method::DELETE => KeyChange::Delete { path, dir, recursive },
        // Whoever wants to know for sure is told what is there, and does not wait: as in etcd.
        _ if wait && !quorum => return Ok(Asked::Watch(Watch { path, recursive, stream, since })),
        _ => return Ok(Asked::Read(Read { path, recursive, quorum })),
    };
    Ok(Asked::Write { change, terse })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: Method, key: &str, form: &str) -> Result<Asked, Fault> {
        asked(key, &method, &Form::read(form.as_bytes(), "").unwrap(), 1000)
    }

    fn path(text: &str) -> KeyPath {
        KeyPath::new(text).unwrap()
    }

    #[test]
    fn requests_become_changes() {
        let check = |method: Method, form: &str, expected: KeyChange| {
            let asked = ask(method, "/a", form).unwrap();
            assert_eq!(asked, Asked::Write { change: expected, terse: false }, "{form}");
        };
        let (a, value) = (|| path("/a"), || Some(Arc::from("v")));
        let was = |value: &str, index| KeyWas { value: value.into(), index };
        check(Method::PUT, "value=v", KeyChange::Set { path: a(), value: value(), end: KeyEnd::Never });
        check(
            Method::PUT,
            "value=v&ttl=2&prevExist=true",
            KeyChange::Update { path: a(), value: "v".into(), end: KeyEnd::At(3000) },
        );
        check(
            Method::PUT,
            "ttl=2&refresh=1&prevExist=true&prevIndex=4",
            KeyChange::CompareAndSwap {
                path: a(),
                was: was("", 4),
                value: "".into(),
                end: KeyEnd::Refresh(3000),
            },
        );
        check(
            Method::PUT,
            "dir=true&value=v&prevExist=f&ttl=99999999999999999",
            KeyChange::Create { path: a(), value: None, expires: Some(END_MAX) },
        );
        check(Method::POST, "value=v", KeyChange::CreateInOrder { path: a(), value: value(), expires: None });
        check(Method::DELETE, "prevValue=x", KeyChange::CompareAndDelete { path: a(), was: was("x", 0) });
        check(Method::DELETE, "recursive=true", KeyChange::Delete { path: a(), dir: false, recursive: true });
    }

    #[test]
    fn slips_are_named_as_etcd_names_them() {
        let check = |method: Method, form: &str, code: u16, cause: &str| {
            let fault = ask(method, "/a", form).unwrap_err();
            assert_eq!((fault.code(), fault.cause.as_str()), (code, cause), "{form}");
        };
        check(Method::PUT, "prevIndex=x", 203, "invalid value for \"prevIndex\"");
        check(Method::GET, "waitIndex=-1", 203, "invalid value for \"waitIndex\"");
        check(Method::GET, "recursive=yes", 209, "invalid value for \"recursive\"");
        check(Method::PUT, "dir=", 209, "invalid value for \"dir\"");
        check(Method::PUT, "wait=true", 209, "\"wait\" can only be used with GET requests");
        check(Method::PUT, "prevValue=", 201, "\"prevValue\" cannot be empty");
        check(Method::PUT, "ttl=+1", 202, "invalid value for \"ttl\"");
        check(Method::PUT, "prevExist=x", 209, "invalid value for prevExist");
        check(Method::PUT, "refresh=true&value=x", 211, "A value was provided on a refresh");
        check(Method::PUT, "refresh=true", 212, "No TTL value set");
    }
}
