//! The README shows the program that is compiled as documentation of nabla-monitor.

use std::{fs, path::Path};

fn program(readme: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(readme);
    let text = fs::read_to_string(path).unwrap();
    let block = text.split("```").find(|block| block.contains("use nabla_monitor")).unwrap();
    block.to_owned()
}

#[test]
fn readme_has_the_compiled_program_of_nabla_monitor() {
    assert_eq!(program("README.md"), program("nabla-monitor/README.md"));
}
