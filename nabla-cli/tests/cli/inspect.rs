//! `nabla inspect`.

use crate::{nabla, outcome};
use nabla_testkit::guest;
use serde_json::{Value, json};

fn inspect(name: &str) -> Value {
    let seen = outcome(nabla().arg("inspect").arg(guest(name)).arg("--json"));
    assert_eq!((seen.status, seen.stderr.as_str()), (0, ""));
    serde_json::from_str(&seen.stdout).unwrap()
}

/// The type of every value, by its path.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
        Value::Array(elements) => Value::Array(elements.first().map(shape).into_iter().collect()),
        Value::String(_) => json!("string"),
        Value::Number(_) => json!("number"),
        Value::Bool(_) => json!("boolean"),
        Value::Null => Value::Null,
    }
}

#[test]
fn json_has_the_documented_form() {
    assert_eq!(
        shape(&inspect("two-disks")),
        json!({
            "type": "string", "version": "number", "image": "string", "file_size": "number",
            "abi": "string", "abi_source": "string", "abi_reasons": [], "backend": "string",
            "entry": "string", "image_end": "string", "minimum_memory": "number",
            "net_config": null, "net_config_source": null,
            "devices": [{ "index": "number", "name": "string", "kind": "string" }],
            "segments": [{
                "index": "number", "start": "string", "end": "string", "memory_size": "number",
                "file_offset": "number", "file_size": "number", "permissions": "string",
            }],
            "warnings": [],
        })
    );
}

#[test]
fn json_tells_abi_devices_and_segments() {
    let image = inspect("two-disks");
    assert_eq!((&image["type"], &image["version"]), (&json!("nabla.image"), &json!(1)));
    assert_eq!(
        (&image["abi"], &image["abi_source"], &image["backend"]),
        (&json!("spt-v2"), &json!("note"), &json!("process"))
    );
    assert_eq!(
        image["devices"],
        json!([{ "index": 1, "name": "a", "kind": "block" }, { "index": 2, "name": "b", "kind": "block" }])
    );
    let text = &image["segments"][0];
    assert_eq!((&text["start"], &text["permissions"]), (&json!("0x100000"), &json!("r-x")));
    assert_eq!(inspect("net-echo")["devices"][0]["kind"], "net");
}

#[test]
fn text_tells_the_same() {
    let seen = outcome(nabla().arg("inspect").arg(guest("two-disks")));
    assert_eq!((seen.status, seen.stderr.as_str()), (0, ""));
    for part in ["spt-v2, as its ABI note says", "a confined process", "1  block  a", "2  block  b", "r-x"] {
        assert!(seen.stdout.contains(part), "{part}: {}", seen.stdout);
    }
}

#[test]
fn failures_have_the_statuses_of_run() {
    for (path, status) in [("/nonexistent", 127), ("/etc", 126), ("/etc/passwd", 126)] {
        let seen = outcome(nabla().args(["inspect", path]));
        assert_eq!((seen.status, seen.stdout.as_str()), (status, ""), "{}", seen.stderr);
        assert!(
            seen.stderr.starts_with("nabla: image '") && seen.stderr.lines().count() == 1,
            "{}",
            seen.stderr
        );
    }
    let seen = outcome(nabla().arg("inspect").arg(guest("hello")).args(["--abi", "hvt-v1"]));
    assert_eq!(seen.status, 126);
    assert!(seen.stderr.contains("spt-v2"), "{}", seen.stderr);
}
