//! Requests by chance, always the same ones for a seed: good ones, refused ones, and such as mean nothing.

/// A generator that needs no library.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    pub fn one<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.roll(all.len() as u64) as usize]
    }
}

/// Indices are ours; the other side's are greater by a number.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: &'static str,
    pub key: String,
    pub fields: Vec<(&'static str, Field)>,
    /// In the body, not in the query.
    pub in_body: bool,
}

#[derive(Clone, Debug)]
pub enum Field {
    Text(String),
    Index(u64),
}

impl Request {
    pub fn form(&self, offset: u64) -> String {
        let fields = self.fields.iter().map(|(name, field)| match field {
            Field::Text(text) => format!("{name}={text}"),
            Field::Index(index) => format!("{name}={}", index + offset),
        });
        fields.collect::<Vec<_>>().join("&")
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|(own, _)| *own == name).map(|(_, field)| field)
    }
}

const KEYS: &[&str] = &[
    "",
    "/a",
    "/b",
    "/c",
    "/a/x",
    "/a/y",
    "/b/x",
    "/b/x/1",
    "/b/x/2",
    "/_h",
    "/_h/k",
    "/a/_s",
    "/a/_s/k",
    "/d%20e",
    "/d%20e/%C3%A9",
    "/c/",
    "/q",
    "/b/y/z/w",
];
const VALUES: &[&str] = &["", "1", "2", "hello+world", "%3Cb%3E", "%C3%A9%00", "%7B%22a%22%3A1%7D"];
const TRUTHS: &[&str] = &["true", "true", "1", "t", "T", "false", "f", "0", "yes", ""];

/// The next request, for somebody whose keys are at `index`.
pub fn draw(dice: &mut Dice, index: u64) -> Request {
    let method = dice.one(&["PUT", "PUT", "PUT", "PUT", "POST", "DELETE", "DELETE", "GET", "GET", "HEAD"]);
    let key = dice.one(KEYS).to_string();
    let mut fields: Vec<(&'static str, Field)> = Vec::new();
    let mut add = |name, text: &str| fields.push((name, Field::Text(text.into())));
    let near = |dice: &mut Dice| index.saturating_sub(dice.roll(12)).max(1);
    match method {
        "PUT" | "POST" => {
            if dice.roll(8) > 0 {
                add("value", dice.one(VALUES));
            }
            if dice.roll(10) == 0 {
                add("dir", if dice.roll(4) > 0 { "true" } else { dice.one(TRUTHS) });
            }
            if dice.roll(7) == 0 {
                add("ttl", dice.one(&["1000", "5000", "1000", "", "5000", "x", "-1", "+5"]));
            }
            if dice.roll(6) == 0 {
                add(
                    "prevExist",
                    if dice.roll(4) > 0 { dice.one(&["true", "false"]) } else { dice.one(TRUTHS) },
                );
            }
            if dice.roll(12) == 0 {
                add("prevValue", dice.one(VALUES));
            }
            if dice.roll(12) == 0 {
                add("refresh", if dice.roll(4) > 0 { "true" } else { dice.one(TRUTHS) });
            }
            if dice.roll(20) == 0 {
                add("noValueOnSuccess", dice.one(TRUTHS));
            }
            if dice.roll(12) == 0 {
                let index = near(dice);
                fields.push(("prevIndex", Field::Index(index)));
            }
        }
        "DELETE" => {
            if dice.roll(3) == 0 {
                add("dir", dice.one(TRUTHS));
            }
            if dice.roll(2) == 0 {
                add("recursive", dice.one(TRUTHS));
            }
            if dice.roll(5) == 0 {
                add("prevValue", dice.one(VALUES));
            }
            if dice.roll(5) == 0 {
                let index = near(dice);
                fields.push(("prevIndex", Field::Index(index)));
            }
        }
        _ => {
            if dice.roll(2) == 0 {
                add("recursive", dice.one(TRUTHS));
            }
            for name in ["sorted", "quorum"] {
                if dice.roll(4) == 0 {
                    add(name, dice.one(TRUTHS));
                }
            }
            if dice.roll(4) == 0 {
                add("wait", "true");
                let index = near(dice);
                fields.push(("waitIndex", Field::Index(index)));
            }
        }
    }
    if dice.roll(60) == 0 {
        fields.push(("prevIndex", Field::Text("x".into())));
    }
    let in_body = matches!(method, "PUT" | "POST") && dice.roll(4) > 0;
    Request { method, key, fields, in_body }
}
