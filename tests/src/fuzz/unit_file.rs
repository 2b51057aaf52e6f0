//! Unit files: from text, and from options one by one, as fleet's API brings them.

use std::collections::BTreeSet;

use cluster::{Requirements, UnitFile, UnitName, UnitOption, validate};

/// Under which the file is stored: what it asks of the cluster may hang on the name.
const NAMES: [&str; 3] = ["a.service", "a@1.service", "a@.service"];

/// The bytes are a unit file.
pub fn text(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match UnitFile::parse(text) {
        Ok(file) => {
            assert_eq!(file.text(), text, "the text is kept as it is");
            is_read_again(&file);
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && said.len() < 1000 && !said.contains('\n'), "{said:?}");
            // A text that an older version took.
            assert_eq!(UnitFile::from(text.to_string()).text(), text);
        }
    }
}

/// The bytes are lines `SECTION|NAME|VALUE`; a line break within a part is written as U+240A.
pub fn options(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let option = |line: &str| {
        let mut parts = line.splitn(3, '|').map(|part| part.replace('\u{240a}', "\n"));
        let mut part = || parts.next().unwrap_or_default();
        UnitOption { section: part(), name: part(), value: part() }
    };
    let options: Vec<UnitOption> = text.split('\n').filter(|line| !line.is_empty()).map(option).collect();
    match UnitFile::from_options(options.clone()) {
        Ok(file) => {
            assert_eq!(by_section(file.options()), by_section(&options), "each option is kept as it is");
            is_read_again(&file);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What a valid file is written as is read as the same file.
pub fn is_read_again(file: &UnitFile) {
    let canonical = UnitFile::parse(&file.canonical()).expect("what was written can be read");
    assert_eq!(canonical.text(), canonical.canonical(), "written again, it is the same");
    assert_eq!(canonical.hash(), file.hash());
    let options = by_section(file.options());
    assert_eq!(by_section(canonical.options()), options);
    let joined = |file: &UnitFile| -> Vec<String> {
        by_section(file.options()).into_iter().map(|option| option.joined().into_owned()).collect()
    };
    assert_eq!(joined(&canonical), joined(file), "it means the same");
    let back = UnitFile::from_options(file.options().to_vec()).expect("each option can be written down");
    assert_eq!((back.hash(), back.text()), (file.hash(), canonical.text()));
    for name in NAMES {
        let name = UnitName::new(name).expect("a name");
        assert_eq!(verdict(&name, file), verdict(&name, &canonical), "{name}");
        assert_eq!(Requirements::of(&name, file), Requirements::of(&name, &canonical), "{name}");
    }
}

/// Whether the file may be stored, and what is to be said of it, in whatever order.
fn verdict(name: &UnitName, file: &UnitFile) -> Result<BTreeSet<String>, String> {
    let warnings = validate(name, file).map_err(|error| error.to_string())?;
    Ok(warnings.iter().map(|warning| warning.to_string()).collect())
}

/// In the order of the canonical text.
fn by_section(options: &[UnitOption]) -> Vec<&UnitOption> {
    let mut sections: Vec<&str> = Vec::new();
    for option in options {
        if !sections.contains(&&*option.section) {
            sections.push(&option.section);
        }
    }
    let mut options: Vec<&UnitOption> = options.iter().collect();
    options.sort_by_key(|option| sections.iter().position(|section| *section == option.section));
    options
}
