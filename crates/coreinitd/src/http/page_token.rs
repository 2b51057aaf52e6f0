//! fleet's page tokens: two little-endian 16 bit numbers, the page size and the page, as URL-safe base64. The
//! texts of the errors are those of Go's decoder, which fleet's clients have always shown.

use super::error::Refusal;
use super::request::Parameters;

/// fleet's `token_limit`: items on a page. Clients cannot choose it.
pub(super) const PAGE_SIZE: u16 = 100;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// From 1.
#[derive(Clone, Copy)]
pub(super) struct PageNumber(u16);

impl PageNumber {
    pub(super) fn asked_for(query: &Parameters) -> Result<PageNumber, Refusal> {
        let mut tokens = query.all("nextPageToken");
        let Some(token) = tokens.next() else { return Ok(PageNumber(1)) };
        if tokens.next().is_some() {
            return Err(Refusal::Invalid("too many values for page token".into()));
        }
        match decode(token).map_err(Refusal::Invalid)? {
            (PAGE_SIZE, 0) => Err(Refusal::Invalid("token page must be greater than zero".into())),
            (PAGE_SIZE, page) => Ok(PageNumber(page)),
            _ => Err(Refusal::Invalid(format!("token limit must be {PAGE_SIZE}"))),
        }
    }

    /// The page's items, and the next page's token, if there may be one. Refused when there are more items
    /// than tokens can count: the rest would be missing from the list in silence.
    pub(super) fn of<T>(self, items: impl Iterator<Item = T>) -> Result<(Vec<T>, String), Refusal> {
        let size = usize::from(PAGE_SIZE);
        let mut items = items.skip(size * (usize::from(self.0) - 1));
        let found: Vec<T> = items.by_ref().take(size).collect();
        // A full last page has a token too, for a page that is empty: so it was with fleet.
        let token = match self.0.checked_add(1).filter(|_| found.len() == size) {
            Some(next) => encode(PAGE_SIZE, next),
            None if items.next().is_some() => {
                let text = format!("no page token can name page {} of this list", u32::from(self.0) + 1);
                return Err(Refusal::Invalid(text));
            }
            None => String::new(),
        };
        Ok((found, token))
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
    fn pages_end_where_the_list_or_the_token_does() {
        let last = u16::MAX;
        let check = |page: u16, items: usize, expected: Option<(usize, &str)>| {
            let found = PageNumber(page).of(0..items).ok();
            let found = found.as_ref().map(|(items, token)| (items.len(), token.as_str()));
            assert_eq!(found, expected, "page {page} of {items}");
        };
        check(1, 0, Some((0, "")));
        check(1, 99, Some((99, "")));
        check(1, 100, Some((100, "ZAACAA==")));
        check(2, 100, Some((0, "")));
        check(2, 101, Some((1, "")));
        // Where fleet's numbers overflowed: it crashed at the first, and began anew at the second.
        check(656, 70_000, Some((100, "ZACRAg==")));
        check(657, 70_000, Some((100, "ZACSAg==")));
        check(last, 6_553_500, Some((100, "")));
        check(last, 6_553_499, Some((99, "")));
        check(last, 6_553_501, None);
        check(last - 1, 6_553_501, Some((100, "ZAD__w==")));
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
