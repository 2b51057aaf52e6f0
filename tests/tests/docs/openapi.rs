//! `docs/openapi.json` is written by hand, and held here: it has every request that is served, with the role
//! that it takes, and no other; each schema takes what the daemon's own types look like on the wire, key by
//! key.

mod samples;

use std::collections::BTreeSet;

use coreinitd::http::requests;
use serde_json::{Map, Value};
use tests::sources::root;

use crate::none;

/// Paths that only tell that nothing is there, as fleet's did.
const ROOTS: [&str; 2] = ["/", "/fleet/v1"];
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

fn description() -> Value {
    let text = std::fs::read_to_string(root().join("docs/openapi.json")).expect("it is there");
    serde_json::from_str(&text).expect("it is JSON")
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("expected an object: {value}"))
}

/// `GET /v1/units viewer`, from the document.
fn described(document: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, item) in object(&document["paths"]) {
        for (method, operation) in object(item).iter().filter(|(name, _)| METHODS.contains(&name.as_str())) {
            let role = operation["x-role"].as_str().unwrap_or("without a role");
            found.insert(format!("{} {path} {role}", method.to_uppercase()));
        }
    }
    found
}

#[test]
fn every_request_is_described() {
    let served = requests().filter(|(_, path, _)| !ROOTS.contains(path));
    let served: BTreeSet<String> =
        served.map(|(method, path, role)| format!("{method} {path} {role}")).collect();
    let described = described(&description());
    let missing = served.difference(&described).map(|one| format!("docs/openapi.json lacks {one}"));
    let strange = described.difference(&served).map(|one| format!("docs/openapi.json: nobody serves {one}"));
    none(missing.chain(strange).collect());
}

/// Every `$ref` below that value.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let document = description();
    let mut found = Vec::new();
    references(&document, &mut found);
    let lost = found.iter().filter(|path| document.pointer(path.trim_start_matches('#')).is_none());
    none(lost.map(|path| format!("there is no {path}")).collect());
    let unused = object(&document["components"]["schemas"]).keys();
    let unused = unused.filter(|name| !found.iter().any(|path| path.ends_with(&format!("/{name}"))));
    none(unused.map(|name| format!("nobody uses the schema {name}")).collect());
    for (path, item) in object(&document["paths"]) {
        let named =
            item["parameters"].as_array().is_some_and(|all| all.iter().any(|one| one["in"] == "path"));
        assert_eq!(named, path.contains("{name}"), "{path}");
    }
}

/// What of a value the schema does not take. Only what the document uses of JSON Schema.
fn unfit(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(path) = schema["$ref"].as_str() {
        let schema = document.pointer(path.trim_start_matches('#')).unwrap_or(&Value::Null);
        return unfit(document, schema, value, at);
    }
    for kind in ["oneOf", "anyOf"] {
        if let Some(schemas) = schema[kind].as_array() {
            let all: Vec<_> = schemas.iter().map(|schema| unfit(document, schema, value, at)).collect();
            let fitting = all.iter().filter(|faults| faults.is_empty()).count();
            let fits = if kind == "oneOf" { fitting == 1 } else { fitting > 0 };
            return if fits {
                Vec::new()
            } else {
                vec![format!("{at}: {fitting} of {kind} take {value}: {all:?}")]
            };
        }
    }
    let mut faults = Vec::new();
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let takes = match &schema["type"] {
        Value::String(name) => name == is,
        Value::Array(names) => names.iter().any(|name| name == is),
        _ => false,
    };
    if !takes {
        return vec![format!("{at}: {value} is no {}", schema["type"])];
    }
    if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
        faults.push(format!("{at}: {value} is not among {allowed:?}"));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        faults.push(format!("{at}: {value} is not {}", schema["const"]));
    }
    match value {
        Value::Array(values) => {
            let items = values.iter().zip(0..);
            faults
                .extend(items.flat_map(|(v, n)| unfit(document, &schema["items"], v, &format!("{at}[{n}]"))));
        }
        Value::Object(map) => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let missing = required.filter(|name| !map.contains_key(*name));
            faults.extend(missing.map(|name| format!("{at}: {name} is missing")));
            for (name, value) in map {
                let (property, others) = (&schema["properties"][name], &schema["additionalProperties"]);
                let schema = if property.is_null() { others } else { property };
                match schema {
                    Value::Object(_) => {
                        faults.extend(unfit(document, schema, value, &format!("{at}.{name}")))
                    }
                    _ => faults.push(format!("{at}: {name} is not described")),
                }
            }
        }
        _ => {}
    }
    faults
}

/// Keys that a schema lists and no sample has: a field that is gone, or a slip.
fn unseen(name: &str, schema: &Value, samples: &[&Value]) -> Vec<String> {
    let listed = schema["properties"].as_object().into_iter().flat_map(|all| all.keys());
    let never = listed.filter(|key| !samples.iter().any(|sample| sample.get(key).is_some()));
    never.map(|key| format!("{name}: nothing has {key}")).collect()
}

#[test]
fn the_schemas_are_what_is_on_the_wire() {
    let (document, samples) = (description(), samples::all());
    let schemas = object(&document["components"]["schemas"]);
    let mut faults = Vec::new();
    for (name, sample) in &samples {
        match schemas.get(*name) {
            Some(schema) => faults.extend(unfit(&document, schema, sample, name)),
            None => faults.push(format!("docs/openapi.json has no schema {name}")),
        }
    }
    for (name, schema) in schemas {
        let of: Vec<&Value> =
            samples.iter().filter(|(one, _)| one == name).map(|(_, sample)| sample).collect();
        if of.is_empty() {
            faults.push(format!("{name} has no sample"));
        }
        faults.extend(unseen(name, schema, &of));
    }
    none(faults);
}

#[test]
fn what_does_not_fit_is_found() {
    let document = description();
    let check = |name: &str, value: Value, fault: Option<&str>| {
        let schema = &document["components"]["schemas"][name];
        let found = unfit(&document, schema, &value, name);
        match fault {
            None => none(found),
            Some(fault) => assert!(found.iter().any(|found| found.contains(fault)), "{found:?}"),
        }
    };
    check("Move", serde_json::json!({"machine": "h1"}), None);
    check("Move", serde_json::json!({"machin": "h1"}), Some("machin is not described"));
    check("Move", serde_json::json!({"machine": 3}), Some("is no \"string\""));
    check("Uninvite", serde_json::json!({}), Some("name is missing"));
    check("State", serde_json::json!("started"), Some("is not among"));
    check("Operation", serde_json::json!({"op": "destroy", "name": "a.service"}), None);
    check("Operation", serde_json::json!({"op": "cook", "name": "a.service"}), Some("0 of oneOf"));
    check("TokenWish", serde_json::json!({"ttl": null}), None);
    assert_eq!(unseen("Move", &document["components"]["schemas"]["Move"], &[]).len(), 1);
}
