//! fleet's server was Go's: a path with empty, `.` or `..` segments was answered with the way to the cleaned
//! one, whatever the method. A write that names something above where it points is refused here instead.

use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::http::error::Refusal;

/// The redirection that Go's server would give; `None` when the path is clean, or is none of fleet's.
pub(in crate::http) fn redirect(method: &Method, uri: &Uri) -> Option<Response> {
    if uri.path() == "/v1" || uri.path().starts_with("/v1/") {
        return None;
    }
    let path = decoded(uri.path())?;
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if !reads && path.split('/').any(|segment| segment == "..") {
        let why = format!("{method} {path}: a path with \"..\" in it changes nothing");
        return Some(Refusal::Invalid(why).into_response());
    }
    let clean = cleaned(&path);
    if clean == path {
        return None;
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = encoded(&clean) + &query;
    let value = HeaderValue::try_from(&location).ok()?;
    let mut response = (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, value)]).into_response();
    if method == Method::GET {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, html);
        let escaped = location.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let escaped = escaped.replace('"', "&#34;").replace('\'', "&#39;");
        *response.body_mut() = Body::from(format!("<a href=\"{escaped}\">Moved Permanently</a>.\n\n"));
    }
    Some(response)
}

/// Without empty, `.` and `..` segments; a slash at the end stays.
fn cleaned(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let slash = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    format!("/{}{slash}", segments.join("/"))
}

fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn encoded(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => text.push(char::from(byte)),
            byte if b"/-_.~$&+,:;=@".contains(&byte) => text.push(char::from(byte)),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        let check = |path: &str, expected: Option<&str>| {
            let response = redirect(&Method::GET, &path.parse().unwrap());
            let location = response.as_ref().map(|r| r.headers()["location"].to_str().unwrap());
            assert_eq!(location, expected, "{path}");
        };
        check("/fleet/v1/units", None);
        check("/fleet/v1/units/", None);
        check("/", None);
        check("//", Some("/"));
        check("/fleet/v1//units?a=b", Some("/fleet/v1/units?a=b"));
        check("/fleet/./v1/units//", Some("/fleet/v1/units/"));
        check("/fleet/v1/units/../../etc/x", Some("/fleet/etc/x"));
        check("/fleet/v1/units/..%2F..%2Fa%20b", Some("/fleet/a%20b"));
        check("/../..", Some("/"));
        check("/fleet/v1/units/a%2Fb.service", None);
        check("/fleet/v1/units/lb%402.service", None);
        check("/fleet/v1/units/%FF", None);
        check("/fleet/v1/units/%", None);
        check("/v1//units", None);
    }
}
