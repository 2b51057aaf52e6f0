//! fleet's page tokens: two little-endian 16 bit numbers, the page size and the page, as URL-safe base64. The
//! texts of the errors are those of Go's decoder, which fleet's clients have always shown.

use super::error::Refusal;
use super::request::Parameters;

/// fleet's `token_limit`: items on a page. Clients cannot choose it.
pub(super) const PAGE_SIZE: u16 = 100;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The items of the page that is asked for, and the next page's token, if there may be one.
pub(super) fn page<T>(items: Vec<T>, query: &Parameters) -> Result<(Vec<T>, String), Refusal> {
    let page = page_asked_for(query)?;
    let size = usize::from(PAGE_SIZE);
    let start = size * (usize::from(page) - 1);
    // A full last page has a token too, for a page that is empty: so it was with fleet.
    let more = start + size <= items.len();
    let token = match page.checked_add(1).filter(|_| more) {
        Some(next) => encode(PAGE_SIZE, next),
        None => String::new(),
    };
    Ok((items.into_iter().skip(start).take(size).collect(), token))
}

/// From 1.
fn page_asked_for(query: &Parameters) -> Result<u16, Refusal> {
    let mut tokens = query.all("nextPageToken");
    let Some(token) = tokens.next() else { return Ok(1) };
    if tokens.next().is_some() {
        return Err(Refusal::Invalid("too many values for page token".into()));
    }
    match decode(token).map_err(Refusal::Invalid)? {
        (PAGE_SIZE, 0) => Err(Refusal::Invalid("token page must be greater than zero".into())),
        (PAGE_SIZE, page) => Ok(page),
        _ => Err(Refusal::Invalid(format!("token limit must be {PAGE_SIZE}"))),
    }
}

fn encode(limit: u16, page: u16) -> String {
    let ([a, b], [c, d]) = (limit.to_le_bytes(), page.to_le_bytes());
    let digit = |value: u8| char::from(ALPHABET[usize::from(value & 63)]);
    let first = [digit(a >> 2), digit(a << 4 | b >> 4), digit(b << 2 | c >> 6), digit(c)];
    let last = [digit(d >> 2), digit(d << 4)];
    first.into_iter().chain(last).chain("==".chars()).collect()
}

fn decode(token: &str) -> Result<(u16, u16), String> {
    let bytes =
        decode_base64(token.as_bytes()).map_err(|at| format!("illegal base64 data at input byte {at}"))?;
    match bytes[..] {
        [] => Err("EOF".into()),
        [a, b, c, d, ..] => Ok((u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))),
        _ => Err("unexpected EOF".into()),
    }
}

/// Padded base64 (RFC 4648, section 5); the error is the place that Go names.
fn decode_base64(text: &[u8]) -> Result<Vec<u8>, usize> {
    let mut bytes = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let group = &text[start..text.len().min(start + 4)];
        let digits = group.iter().take_while(|byte| **byte != b'=').count();
        let mut value = 0u32;
        for (at, byte) in group[..digits].iter().enumerate() {
            let digit = ALPHABET.iter().position(|known| known == byte).ok_or(start + at)?;
            value |= u32::try_from(digit).map_err(|_| start + at)? << (18 - 6 * at);
        }
        let decoded = match (digits, &group[digits..]) {
            (4, []) => 3,
            (3, [b'=']) => 2,
            (2, [b'=', b'=']) => 1,
            (2, [b'=']) => return Err(text.len()),
            (2, [b'=', _]) => return Err(start + 3),
            (_, []) => return Err(start),
            _ => return Err(start + digits),
        };
        bytes.extend_from_slice(&value.to_be_bytes()[1..=decoded]);
        start += group.len();
        if decoded < 3 && start < text.len() {
            return Err(start);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_fleets() {
        let check = |limit, page, token: &str| {
            assert_eq!(encode(limit, page), token);
            assert_eq!(decode(token), Ok((limit, page)));
        };
        check(100, 2, "ZAACAA==");
        check(19, 11852, "EwBMLg==");
        check(12482, 0, "wjAAAA==");
        check(1023, 0, "_wMAAA==");
        check(45, 9, "LQAJAA==");
        check(u16::MAX, u16::MAX, "_____w==");
    }

    #[test]
    fn bad_tokens_are_refused_in_gos_words() {
        let check = |token: &str, error: &str| assert_eq!(decode(token), Err(error.into()), "{token:?}");
        check("xxx", "illegal base64 data at input byte 0");
        check("!!!!", "illegal base64 data at input byte 0");
        check("ZAABAA", "illegal base64 data at input byte 4");
        check("ZAA!AA==", "illegal base64 data at input byte 3");
        check("ZAABAA=", "illegal base64 data at input byte 7");
        check("ZAABAA=x", "illegal base64 data at input byte 7");
        check("ZAABAA==ZAAB", "illegal base64 data at input byte 8");
        check("ZAA=", "unexpected EOF");
        check("", "EOF");
    }
}
