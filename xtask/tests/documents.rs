//! What README and docs/ say about the code is there.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(document: &str) -> String {
    fs::read_to_string(workspace().join(document)).unwrap()
}

fn program(readme: &str) -> String {
    let text = text(readme);
    let block = text.split("```").find(|block| block.contains("use nabla_monitor")).unwrap();
    block.to_owned()
}

#[test]
fn readme_has_the_compiled_program_of_nabla_monitor() {
    assert_eq!(program("README.md"), program("nabla-monitor/README.md"));
}

#[test]
fn files_that_glossary_and_architecture_name_exist() {
    let mut found = 0;
    for document in ["docs/glossary.md", "docs/architecture.md"] {
        for code in text(document).split('`').skip(1).step_by(2) {
            if ["nabla-", "benches/", "guests/", "xtask/"].iter().any(|start| code.starts_with(start))
                && code.contains('/')
            {
                assert!(workspace().join(code).exists(), "{document} names {code}");
                found += 1;
            }
        }
    }
    assert!(found > 80, "{found}");
}

#[test]
fn links_of_documents_lead_to_files() {
    let documents = fs::read_dir(workspace().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for document in documents.chain([workspace().join("README.md"), workspace().join("CONTRIBUTING.md")]) {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let path = link.split('#').next().unwrap();
            if !path.is_empty() && !link.contains("://") {
                let exists = document.parent().unwrap().join(path).exists();
                assert!(exists, "{} links to {link}", document.display());
            }
        }
    }
}
