//! What the workspace's tests share.
//!
//! * [`guest`]: the path of a test guest, built on first use.
//! * [`need`]: what a test needs of the machine; a test that lacks it is reported as skipped, by name and reason.
//! * [`deny`]: has a program run on a host that denies system calls.
//! * [`TestTap`]: a tap device that goes away with the test.

mod deny;
pub mod need;
mod tap;

pub use deny::{Call, deny};
pub use tap::TestTap;

use std::{
    collections::HashMap,
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

/// The workspace's directory.
#[must_use]
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The directory for build products.
#[must_use]
pub fn target_directory() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}

/// The path of the test guest `name` for the `spt` ABI. Builds all test guests when called first.
///
/// # Panics
///
/// When they cannot be built or there is none of that name.
#[must_use]
pub fn guest(name: &str) -> PathBuf {
    let path = built("guests", Path::new("guests"), &[]).join(name);
    assert!(path.exists(), "there is no test guest '{name}' ({})", path.display());
    path
}

/// The path of the test guest `name` for the `hvt` ABI. Builds all test guests when called first.
///
/// # Panics
///
/// As [`guest`].
#[must_use]
pub fn guest_hvt(name: &str) -> PathBuf {
    let path = built("guests-hvt", Path::new("guests"), &["--features", "hvt"]).join(name);
    assert!(path.exists(), "there is no test guest '{name}' ({})", path.display());
    path
}

/// The path of the guest `examples/NAME` for the `spt` ABI. Builds it when called first.
///
/// # Panics
///
/// As [`guest`].
#[must_use]
pub fn example(name: &str) -> PathBuf {
    let path = built("examples", &Path::new("examples").join(name), &[]).join(name);
    assert!(path.exists(), "there is no example guest '{name}' ({})", path.display());
    path
}

/// The path of the guest `examples/NAME` for the `hvt` ABI, which it has a feature for. Builds it when called first.
///
/// # Panics
///
/// As [`guest`].
#[must_use]
pub fn example_hvt(name: &str) -> PathBuf {
    let source = Path::new("examples").join(name);
    let path = built("examples-hvt", &source, &["--features", "hvt"]).join(name);
    assert!(path.exists(), "there is no example guest '{name}' ({})", path.display());
    path
}

/// Builds the cargo workspace in `source` into `target/NAME`, once per process, and returns where binaries are.
fn built(name: &str, source: &Path, options: &[&str]) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<PathBuf, PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    let target = target_directory().join(name);
    if let Some(directory) = built.get(&target.join(source)) {
        return directory.clone();
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--quiet", "--target-dir"]).arg(&target);
    command.args(options).arg("--manifest-path").arg(workspace().join(source).join("Cargo.toml"));
    // Flags that are meant for the program that runs the tests do not suit freestanding guests.
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_BUILD_RUSTFLAGS"] {
        command.env_remove(variable);
    }
    let status = command.status().unwrap_or_else(|error| panic!("cargo cannot be started: {error}"));
    assert!(status.success(), "the guests in {} cannot be built", source.display());
    let directory = target.join("release");
    built.insert(target.join(source), directory.clone());
    directory
}
