//! Files of `KEY=VALUE` lines as systemd's `EnvironmentFile=` reads them (systemd.exec(5)): comments, quotes,
//! backslashes, lines that go on.

/// Where the reader is.
#[derive(Clone, Copy)]
enum At {
    Start,
    Comment,
    Key,
    /// After `=`, or after a quoted part.
    Value,
    Bare,
    Single,
    Double,
}

/// The variables in the order of the file; a later one of the same name counts.
pub fn read(text: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let (mut key, mut value, mut at) = (String::new(), String::new(), At::Start);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (at, letter) {
            (At::Start, '#' | ';') => at = At::Comment,
            (At::Start, letter) if letter.is_whitespace() => {}
            (At::Start, letter) => {
                (at, key, value) = (At::Key, letter.into(), String::new());
            }
            (At::Comment | At::Key, '\n') => at = At::Start,
            (At::Comment, _) => {}
            (At::Key, '=') => at = At::Value,
            (At::Key, letter) => key.push(letter),
            (At::Value | At::Bare, '\n') => {
                all.push(ended(&key, &mut value, at));
                at = At::Start;
            }
            (At::Value | At::Bare, '\\') => {
                at = At::Bare;
                value.extend(letters.next().filter(|letter| *letter != '\n'));
            }
            (At::Value, '\'') => at = At::Single,
            (At::Value, '"') => at = At::Double,
            (At::Value, letter) if letter.is_whitespace() => {}
            (At::Value | At::Bare, letter) => {
                at = At::Bare;
                value.push(letter);
            }
            (At::Single, '\'') | (At::Double, '"') => at = At::Value,
            (At::Double, '\\') => match letters.next() {
                Some(letter @ ('"' | '\\' | '`' | '$')) => value.push(letter),
                Some('\n') | None => {}
                Some(letter) => value.extend(['\\', letter]),
            },
            (At::Single | At::Double, letter) => value.push(letter),
        }
    }
    match at {
        At::Start | At::Comment | At::Key => {}
        At::Value | At::Bare | At::Single | At::Double => all.push(ended(&key, &mut value, at)),
    }
    all
}

/// Blanks at the end count in quotes only.
fn ended(key: &str, value: &mut String, at: At) -> (String, String) {
    let value = std::mem::take(value);
    let value = if matches!(at, At::Bare) { value.trim_end().to_string() } else { value };
    (key.trim_end().to_string(), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_systemd_reads_it() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            let read = read(text);
            let read: Vec<(&str, &str)> = read.iter().map(|(key, value)| (&**key, &**value)).collect();
            assert_eq!(read, expected, "{text}");
        };
        check("", &[]);
        check("# A=1\n; B=2\n\n A = 3  \nB=", &[("A", "3"), ("B", "")]);
        check("A=1\nA=2", &[("A", "1"), ("A", "2")]);
        check("A='1 2 '\nB=\" 1\\\"\\a\"\n", &[("A", "1 2 "), ("B", " 1\"\\a")]);
        check("A='1\n2'\nB=\"x\\\ny\"\n", &[("A", "1\n2"), ("B", "xy")]);
        check("A=one\\\ntwo\nB=a\\ b\\\\\n", &[("A", "onetwo"), ("B", "a b\\")]);
        check("A='a' 'b'\nB=it's \"so\"\n", &[("A", "ab"), ("B", "it's \"so\"")]);
        check("no variable\nA=b=c # d\n", &[("A", "b=c # d")]);
        check("A='never closed", &[("A", "never closed")]);
    }
}
