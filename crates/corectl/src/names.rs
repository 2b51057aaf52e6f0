//! From what is typed to unit names: paths lose their folders, and names without a unit's type get
//! `.service`.

use anyhow::{Context, bail};
use cluster::{UnitName, UnitNameError};

/// The unit that an argument means.
pub fn unit_name(argument: &str) -> anyhow::Result<UnitName> {
    let base = match argument.rsplit_once('/') {
        Some((_, "")) => bail!("{argument:?} is a directory; name the unit files in it"),
        Some((_, base)) => base,
        None => argument,
    };
    let named = match UnitName::new(base) {
        Err(UnitNameError::NoDot | UnitNameError::UnknownType(_)) if !base.is_empty() => {
            UnitName::new(&format!("{base}.service"))
        }
        named => named,
    };
    named.with_context(|| format!("{argument:?} is no unit"))
}

/// Whether an argument is a pattern over the cluster's units.
pub fn is_pattern(argument: &str) -> bool {
    argument.contains(['*', '?'])
}

/// `*` stands for any characters, `?` for one.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    p = at + 1;
                    n = taken + 1;
                    star = Some((at, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(argument: &str, expected: Result<&str, &str>) {
        match (unit_name(argument), expected) {
            (Ok(name), Ok(expected)) => assert_eq!(name.as_str(), expected),
            (Err(error), Err(text)) => assert!(format!("{error:#}").contains(text), "{error:#}"),
            (got, _) => panic!("{argument}: {got:?}"),
        }
    }

    #[test]
    fn names_as_fleet_had_them() {
        check("foo", Ok("foo.service"));
        check("foo.1", Ok("foo.1.service"));
        check("foo/bar.socket", Ok("bar.socket"));
        check("foo.target", Ok("foo.target"));
        check("web@8000", Ok("web@8000.service"));
        check("./examples/web@8000.service", Ok("web@8000.service"));
    }

    #[test]
    fn what_is_no_name() {
        check("", Err("cannot be empty"));
        check("examples/", Err("is a directory"));
        check("foo%.service", Err("invalid character '%'"));
        check("@.service", Err("cannot start in"));
        check("..", Err("cannot end in"));
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("web@*.service", "web@1.service", true),
            ("web@?.service", "web@10.service", false),
            ("*", "a.service", true),
            ("*.socket", "a.service", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
