//! Patterns over unit names, as in `Conflicts=`: `*` for any run of characters, `?` for one, `[abc]`, `[a-z]`
//! and `[^a]` for one of a set, and a backslash before a character that stands for itself (Go's `path.Match`,
//! which fleet used).

use std::fmt;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Glob {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Run,
    One,
    Char(char),
    Set { ranges: Vec<(char, char)>, is_negated: bool },
}

impl Glob {
    /// `None` when the text is no pattern: a set that is not closed or is empty, or a backslash at the end.
    pub(crate) fn new(text: &str) -> Option<Glob> {
        let mut parts = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            parts.push(match c {
                '*' if parts.last() == Some(&Part::Run) => continue,
                '*' => Part::Run,
                '?' => Part::One,
                '\\' => Part::Char(chars.next()?),
                '[' => {
                    let is_negated = chars.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    loop {
                        let from = match chars.next()? {
                            ']' if ranges.is_empty() => return None,
                            ']' => break,
                            '\\' => chars.next()?,
                            '-' => return None,
                            c => c,
                        };
                        let to = match chars.next_if_eq(&'-') {
                            None => from,
                            Some(_) => match chars.next()? {
                                ']' | '-' => return None,
                                '\\' => chars.next()?,
                                c => c,
                            },
                        };
                        ranges.push((from, to));
                    }
                    Part::Set { ranges, is_negated }
                }
                c => Part::Char(c),
            });
        }
        Some(Glob { text: text.into(), parts })
    }

    /// What every name that matches begins with.
    pub(crate) fn literal_prefix(&self) -> String {
        let literal = |part: &Part| match part {
            Part::Char(c) => Some(*c),
            Part::Run | Part::One | Part::Set { .. } => None,
        };
        self.parts.iter().map_while(literal).collect()
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        // After the last run seen: where it stands, and how much of the name it does not cover yet. A run
        // before it never has to be tried again, so the time is at most the product of both lengths.
        let mut retry: Option<(usize, &str)> = None;
        let (mut at, mut rest) = (0, name);
        loop {
            let mut chars = rest.chars();
            match (self.parts.get(at), chars.next()) {
                (Some(Part::Run), _) => {
                    retry = Some((at, rest));
                    at += 1;
                    continue;
                }
                (None, None) => return true,
                (Some(part), Some(c)) if part.is(c) => {
                    (at, rest) = (at + 1, chars.as_str());
                    continue;
                }
                _ => {}
            }
            let Some((run, covered_from)) = retry else { return false };
            let mut chars = covered_from.chars();
            if chars.next().is_none() {
                return false;
            }
            retry = Some((run, chars.as_str()));
            (at, rest) = (run + 1, chars.as_str());
        }
    }
}

impl Part {
    fn is(&self, c: char) -> bool {
        match self {
            Part::Run => false,
            Part::One => true,
            Part::Char(own) => *own == c,
            Part::Set { ranges, is_negated } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *is_negated
            }
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_path_match_does() {
        let check = |pattern: &str, name: &str, expected: Option<bool>| {
            assert_eq!(Glob::new(pattern).map(|g| g.matches(name)), expected, "{pattern} ~ {name}");
        };
        check("*", "foo.service", Some(true));
        check("foo.*", "foo.socket", Some(true));
        check("foo@*.service", "foo@12.service", Some(true));
        check("foo@[abc].service", "foo@a.service", Some(true));
        check("foo@?.service", "foo@1.service", Some(true));
        check("foo.service", "bar.service", Some(false));
        check("foo@[abc].service", "foo@d.service", Some(false));
        check("foo@[^abc].service", "foo@d.service", Some(true));
        check("[a-c-e]", "b", None);
        check("[a-c]x", "bx", Some(true));
        check("*a*b*", "xxaxxbxx", Some(true));
        check("*a*b", "xxaxxbxx", Some(false));
        check("**", "", Some(true));
        check("?", "", Some(false));
        check("\\*", "*", Some(true));
        check("\\*", "x", Some(false));
        check("[", "x", None);
        check("[]", "x", None);
        check("a\\", "a", None);
        check("*.service", "ünit.service", Some(true));
        let (pattern, name) = ("*a".repeat(50), "a".repeat(200) + "b");
        check(&pattern, &name, Some(false));
    }
}
