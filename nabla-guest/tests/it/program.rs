//! Crates of guests, as somebody would have them outside of this repository.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A crate with one guest, in a directory whose name needs quoting everywhere.
pub struct Program(PathBuf);

impl Program {
    /// The crate "program" with `main` as its program.
    pub fn new(name: &str, main: &str) -> Self {
        let manifest = format!(
            r#"
                [package]
                name = "program"
                edition = "2024"
                [dependencies]
                nabla-guest = {{ path = {:?} }}
                [profile.dev]
                panic = "abort"
                [profile.release]
                panic = "abort"
                [profile.small]
                inherits = "release"
                opt-level = "z"
                lto = "fat"
                strip = true
            "#,
            env!("CARGO_MANIFEST_DIR")
        );
        let build = r#"
            fn main() {
                println!("cargo::rustc-link-arg-bins=@{}", std::env::var("DEP_NABLA_GUEST_LINK_ARGS").unwrap());
            }
        "#;
        let main = format!("#![no_std]\n#![no_main]\n#![forbid(unsafe_code)]\n{main}\n");
        Self::of(name, &[("Cargo.toml", &manifest), ("build.rs", build), ("src/main.rs", &main)])
    }

    /// The crate of these files, whose package is called "program".
    pub fn of(name: &str, files: &[(&str, &str)]) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("a, \"{name}\" guest"));
        match fs::remove_file(directory.join("build.rs")) {
            Err(error) if error.kind() != ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
        fs::create_dir_all(directory.join("src")).unwrap();
        for (file, text) in files {
            // It is in no workspace but its own.
            let end = if *file == "Cargo.toml" { "\n[workspace]\n" } else { "" };
            fs::write(directory.join(file), format!("{text}{end}")).unwrap();
        }
        Self(directory)
    }

    /// One of its files.
    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    fn cargo(&self, profile: &str, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO"))
            .args(["build", "--offline", "--profile", profile])
            .args(arguments)
            .current_dir(&self.0)
            .env("CARGO_TARGET_DIR", self.0.join("target"))
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .output()
            .unwrap()
    }

    /// The path of the guest.
    pub fn build(&self, profile: &str, arguments: &[&str]) -> PathBuf {
        let output = self.cargo(profile, arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.0.join("target").join(if profile == "dev" { "debug" } else { profile }).join("program")
    }

    /// What the compiler or linker says.
    pub fn fail(&self) -> String {
        let output = self.cargo("dev", &[]);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}
