//! Every link within the documents leads to a file that is there, and to a heading of it.

use tests::document::{Document, documents};
use tests::sources::root;

use crate::none;

fn broken(document: &Document) -> Vec<String> {
    let links = document.links().into_iter();
    links
        .filter_map(|(line, target)| {
            let why = leads_nowhere(document, &target)?;
            Some(format!("{}:{line}: ({target}): {why}", document.path))
        })
        .collect()
}

fn leads_nowhere(document: &Document, target: &str) -> Option<&'static str> {
    // Others' pages are theirs to keep.
    if target.contains("://") {
        return None;
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let file = root().join(document.folder()).join(path);
    if !file.exists() {
        return Some("there is no such file");
    }
    let anchor = anchor?;
    let anchors = match path {
        "" => document.anchors(),
        _ => {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            Document { path: String::new(), text }.anchors()
        }
    };
    (!anchors.iter().any(|one| one == anchor)).then_some("there is no such heading")
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    let links: usize = documents.iter().map(|document| document.links().len()).sum();
    assert!(documents.len() > 20 && links > 50, "the links are found: {links}");
    none(documents.iter().flat_map(broken).collect());
}

#[test]
fn a_broken_link_is_found() {
    let check = |text: &str, fault: Option<&str>| {
        let found = broken(&Document { path: "docs/a.md".into(), text: text.into() });
        match fault {
            None => none(found),
            Some(fault) => assert!(found.len() == 1 && found[0].contains(fault), "{found:?}"),
        }
    };
    check("[a](api.md), [b](../README.md), [c](decisions/), [d](https://nowhere.example/x)", None);
    check("[a](operations.md#upgrade)\n# Here\n[b](#here)", None);
    check("[a](no-such.md)", Some("docs/a.md:1: (no-such.md): there is no such file"));
    check("\n[a](README-not.md#x)", Some("docs/a.md:2:"));
    check("[a](operations.md#no-such)", Some("no such heading"));
    check("[b](#nowhere)", Some("no such heading"));
}

/// The table of contents has all that lies beside it.
#[test]
fn every_page_is_in_the_index() {
    let index = tests::document::document("docs/README.md");
    let linked: Vec<String> = index.links().into_iter().map(|(_, target)| target).collect();
    let pages = documents().into_iter().filter_map(|page| page.path.strip_prefix("docs/").map(str::to_owned));
    let missing = pages.filter(|page| page != "README.md" && !linked.contains(page));
    none(missing.map(|page| format!("docs/README.md:1: {page} is missing")).collect());
}
