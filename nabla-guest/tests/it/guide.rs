//! What the documentation tells people to write compiles.

use super::program::Program;
use std::{fs, path::Path};

/// A block of code in a document: the file that the line before it names, if it does, and the text.
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
            blocks.push(Block { file, text });
        } else if !line.is_empty() {
            before = line;
        }
    }
    blocks
}

/// Builds the program of a document with all that it has besides, and checks the names of the program.
fn check(name: &str, document: &str, dependency: &str) {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
    let (files, others): (Vec<_>, Vec<_>) = blocks(&text).into_iter().partition(|block| block.file.is_some());
    let file = |name: &str| {
        let block = files.iter().find(|block| block.file.as_deref() == Some(name));
        &*block.unwrap_or_else(|| panic!("{document} has no {name}")).text
    };
    let (manifest, mut main) = (file("Cargo.toml"), file("src/main.rs").to_owned());
    assert!(manifest.contains(dependency), "{manifest}");
    let there = format!("nabla-guest = {{ path = {:?} }}", env!("CARGO_MANIFEST_DIR"));
    let package = manifest.split("name = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    for (number, block) in others.iter().enumerate() {
        main += &format!("#[allow(dead_code)]\nmod other{number} {{\n{}}}\n", block.text);
    }
    let built = Program::of(
        name,
        &[
            ("Cargo.toml", &manifest.replace(dependency, &there).replace(package, "program")),
            ("build.rs", file("build.rs")),
            ("src/main.rs", &main),
        ],
    );
    built.build("release", &["--features", "nabla-guest/fs"]);
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
