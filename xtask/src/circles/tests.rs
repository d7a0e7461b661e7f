use super::circles;
use std::{fs, path::Path};

/// The circles of a crate with these files, each as "FROM -> TO FILE:LINE" of its arrows.
fn found(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let crate_ = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = crate_.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let root = crate_.path().join(files[0].0);
    let shown = |file: &Path| file.strip_prefix(crate_.path()).unwrap().display().to_string();
    let circles = circles(&root).unwrap();
    let arrows = circles.iter().map(|circle| {
        let arrows = circle.arrows.iter();
        arrows
            .map(|arrow| format!("{} -> {} {}:{}", arrow.from, arrow.to, shown(&arrow.file), arrow.line))
            .collect()
    });
    arrows.collect()
}

#[test]
fn the_workspace_has_no_circle() {
    super::check(&crate::build::workspace()).unwrap();
}

#[test]
fn two_files_that_use_each_other_are_a_circle() {
    let circles = found(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "//! Text.\nuse crate::b::B;\npub struct A(B);"),
        ("b.rs", "\n\nuse super::a;\npub struct B(a::A);"),
    ]);
    assert_eq!(circles, [["a -> b a.rs:2", "b -> a b.rs:3"]]);
}

#[test]
fn three_files_in_a_row_are_none_and_in_a_ring_are_one() {
    let files = |last| {
        [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b;"),
            ("b.rs", "use crate::c;"),
            ("c.rs", last),
        ]
    };
    assert!(found(&files("use std::io;")).is_empty());
    assert_eq!(found(&files("use crate::a;")), [["a -> b a.rs:1", "b -> c b.rs:1", "c -> a c.rs:1"]]);
}

#[test]
fn two_separate_circles_are_two() {
    let circles = found(&[
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::b;"),
        ("b.rs", "use crate::{a, c};"),
        ("c.rs", "use crate::d;"),
        ("d.rs", "use crate::c;"),
    ]);
    assert_eq!(circles.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn path_in_code_type_or_macro_counts_as_one_in_use() {
    let codes = [
        "fn f() { crate::b::g(); }",
        "struct S { b: Option<crate::b::B> }",
        "fn f() { if true { assert_eq!(1, crate::b::g() + 1); } }",
        "impl crate::b::Trait for u8 {}",
        "fn f() { use crate::b; b::g(); }",
        "fn f() { let _ = <crate::b::B as Default>::default(); }",
        "mod inner { use super::super::b; }",
        "pub use crate::b::B;",
        "use crate::{c::C, b::{self, B as Other}};",
        "macro_rules! m { () => { $crate::b::g() } }",
    ];
    for code in codes {
        let circles = found(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", code),
            ("b.rs", "use crate::a;"),
            ("c.rs", ""),
        ]);
        assert_eq!(circles.len(), 1, "{code}");
        assert_eq!(circles[0][0], "a -> b a.rs:1", "{code}");
    }
}

#[test]
fn what_only_looks_like_a_path_to_a_module_does_not_count() {
    let codes = [
        "// use crate::b;\n/* crate::b */",
        "/// [`crate::b::B`]\nfn f() { let _ = \"crate::b\"; }",
        "use other::b; fn f() { other::b::g(); let b = 1; b; }",
        "pub(crate) fn f() {} pub(in crate::a) fn g() {}",
        "fn f(x: X) { x.b(); x.b; X::b(); }",
        "mod b { pub fn g() {} } fn f() { b::g(); self::b::g(); }",
    ];
    for code in codes {
        let circles = found(&[("lib.rs", "mod a; mod b;"), ("a.rs", code), ("b.rs", "use crate::a;")]);
        assert!(circles.is_empty(), "{code}: {circles:?}");
    }
}

#[test]
fn name_of_the_root_stands_for_the_module_it_is_from() {
    let roots = [
        "mod a; mod b; pub use b::B;",
        "mod a; mod b; pub use crate::b::{Other, B};",
        "mod a; mod b; pub use self::b::Inner as B;",
        "mod a; mod b; pub use b::*;",
        "mod a; mod b; use b::B;",
    ];
    for root in roots {
        let circles =
            found(&[("lib.rs", root), ("a.rs", "use crate::B;"), ("b.rs", "pub struct B; use crate::a;")]);
        assert_eq!(circles, [["a -> b a.rs:1", "b -> a b.rs:1"]], "{root}");
    }
}

#[test]
fn root_is_part_of_a_circle_when_its_code_uses_who_uses_it() {
    let program = |main| [("main.rs", main), ("a.rs", "fn f() { crate::LIMIT; }")];
    assert!(found(&program("mod a; pub use a::A; const LIMIT: u8 = 0;")).is_empty());
    let circle = [["main.rs -> a main.rs:2", "a -> main.rs a.rs:1"]];
    assert_eq!(found(&program("mod a; const LIMIT: u8 = 0;\nfn main() { a::f() }")), circle);
    assert_eq!(found(&program("mod a; pub use a::f; const LIMIT: u8 = 0;\nfn main() { f() }")), circle);
}

#[test]
fn unit_tests_do_not_count() {
    let tests = [
        "#[cfg(test)]\nmod tests { use crate::b; }",
        "#[cfg(test)] mod tests;",
        "#[cfg(test)] use crate::b;",
        "#[cfg(all(test, feature = \"x\"))] fn f() { crate::b::g() }",
    ];
    for tests in tests {
        let circles = found(&[("lib.rs", "mod a; mod b;"), ("a.rs", tests), ("b.rs", "use crate::a;")]);
        assert!(circles.is_empty(), "{tests}");
    }
    let not_only = "#[cfg(any(test, unix))] use crate::b;";
    assert_eq!(found(&[("lib.rs", "mod a; mod b;"), ("a.rs", not_only), ("b.rs", "use crate::a;")]).len(), 1);
}

#[test]
fn folder_is_one_node_and_may_be_knotted_inside() {
    let folder = |deep| {
        [
            ("lib.rs", "mod a; mod b;"),
            ("a/mod.rs", "mod x; mod y;"),
            ("a/x.rs", "use super::y; use crate::b;"),
            ("a/y.rs", "use super::x;"),
            ("b.rs", deep),
        ]
    };
    assert!(found(&folder("")).is_empty());
    assert_eq!(found(&folder("use crate::a::y::Y;")), [["a -> b a/x.rs:1", "b -> a b.rs:1"]]);
}

#[test]
fn folders_in_a_folder_may_not_use_each_other() {
    let circles = found(&[
        ("lib.rs", "mod a;"),
        ("a.rs", "mod x; mod y; mod z; trait T {}"),
        ("a/x.rs", "mod w; use super::{T, z};"),
        ("a/x/w.rs", "use crate::a::y;"),
        ("a/y/mod.rs", "mod w;"),
        ("a/y/w.rs", "\nuse super::super::x;"),
        ("a/z.rs", "use super::x;"),
    ]);
    assert_eq!(circles, [["a/x -> a/y a/x/w.rs:1", "a/y -> a/x a/y/w.rs:2"]]);
}

#[test]
fn path_attribute_names_the_file() {
    let circles = found(&[
        ("src/lib.rs", "mod a; #[cfg(unix)] #[path = \"../other/c.rs\"] mod b;"),
        ("src/a.rs", "use crate::b;"),
        ("other/c.rs", "use crate::a;"),
    ]);
    assert_eq!(circles, [["a -> b src/a.rs:1", "b -> a src/../other/c.rs:1"]]);
}

#[test]
fn missing_file_of_a_module_is_an_error() {
    let crate_ = tempfile::tempdir().unwrap();
    let root = crate_.path().join("lib.rs");
    fs::write(&root, "mod absent;").unwrap();
    let error = circles(&root).unwrap_err();
    assert!(error.to_string().starts_with("there is no file for 'mod absent'"), "{error}");
}
