//! What the documentation tells people to write compiles.

use super::program::Program;
use std::{fs, path::Path};

/// A block of code in a document: the file that the line before it names, or Rust for any file, and the text.
struct Block {
    file: Option<String>,
    text: String,
}

fn blocks(document: &str) -> Vec<Block> {
    let (mut blocks, mut before) = (Vec::new(), "");
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if line == "```rust" || line == "```toml" {
            let text =
                lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
            let file = before
                .strip_prefix('`')
                .and_then(|rest| rest.split_once('`'))
                .map(|(name, _)| name.to_owned());
            if file.is_some() || line == "```rust" {
                blocks.push(Block { file, text });
            }
        } else if !line.is_empty() {
            before = line;
        }
    }
    blocks
}

/// Builds the programs of a document with all that it has besides, and checks their name.
fn check(name: &str, document: &str, dependency: &str) {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
    let (files, others): (Vec<_>, Vec<_>) = blocks(&text).into_iter().partition(|block| block.file.is_some());
    let file = |name: &str| {
        let block = files.iter().find(|block| block.file.as_deref() == Some(name));
        &*block.unwrap_or_else(|| panic!("{document} has no {name}")).text
    };
    let manifest = file("Cargo.toml");
    assert!(manifest.contains(dependency), "{manifest}");
    let there = format!("nabla-guest = {{ path = {:?} }}", env!("CARGO_MANIFEST_DIR"));
    let package = manifest.split("name = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let manifest = manifest.replace(dependency, &there).replace(package, "program");
    let (mut programs, parts): (Vec<String>, Vec<String>) =
        others.into_iter().map(|block| block.text).partition(|text| text.starts_with("#![no_std]"));
    let mut main = file("src/main.rs").to_owned();
    for (number, part) in parts.iter().enumerate() {
        main += &format!("#[allow(dead_code)]\nmod part{number} {{\n{part}}}\n");
    }
    programs.push(main);
    for main in programs {
        let files = [("Cargo.toml", &*manifest), ("build.rs", file("build.rs")), ("src/main.rs", &main)];
        let features = ["--features", "nabla-guest/fs,nabla-guest/tcpip"];
        Program::of(name, &files).build("release", &features);
    }
    for path in ["release/", "debug/"].iter().flat_map(|directory| text.split(directory).skip(1)) {
        let name: String = path.chars().take_while(|char| char.is_alphanumeric() || *char == '-').collect();
        assert_eq!(name, package, "{document} calls its program by another name");
    }
}

#[test]
fn program_of_the_guide_compiles_and_has_one_name() {
    let dependency = "nabla-guest = { path = \"../nabla/nabla-guest\" }";
    check("guide", "../docs/guests.md", dependency);
}

#[test]
fn program_of_the_crates_documentation_compiles() {
    check("readme", "README.md", "nabla-guest = \"0.1\"");
}
