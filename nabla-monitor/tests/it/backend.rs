//! The backends, and tests that run for each.

use nabla_monitor::{ByteSize, Console, Guest, GuestBuilder, Runtime, Supervision};
use nabla_testkit::need;
use std::{io::Read, path::PathBuf};

/// A backend, as tests see it.
#[derive(Debug)]
pub struct Backend {
    /// Its name in the names of tests.
    pub name: &'static str,
    /// The levels of supervision that it has.
    pub supervisions: &'static [Supervision],
    /// Sizes of memory, in MiB, from the least to the most.
    pub memory_sizes: &'static [u64],
    /// The path of a test guest's image for one of its ABIs.
    pub image: fn(&str) -> PathBuf,
    /// Whether the machine has what it needs. If not, the calling test is reported as skipped.
    pub is_there: fn() -> bool,
}

/// Guests as confined processes.
pub static PROCESS: Backend = Backend {
    name: "process",
    supervisions: &[Supervision::None, Supervision::Full],
    memory_sizes: &[4, 64, 4096, 65536, 1 << 20],
    image: nabla_testkit::guest,
    is_there: || true,
};

/// Guests in virtual machines.
pub static KVM: Backend = Backend {
    name: "kvm",
    supervisions: &[Supervision::Full],
    memory_sizes: &[4, 64, 512, 4096],
    image: nabla_testkit::guest_hvt,
    is_there: need::kvm,
};

impl Backend {
    /// Whether guests are processes, with a number and what `/proc` tells of one.
    pub fn is_process(&self) -> bool {
        self.name == PROCESS.name
    }

    /// A builder for the test guest `name` with little memory and no output.
    pub fn build(&self, runtime: &Runtime, name: &str) -> GuestBuilder {
        runtime.guest((self.image)(name)).memory(ByteSize::mib(16)).console(Console::null())
    }

    /// Starts a test guest that prints "ready", and returns once it has.
    pub fn start_ready(&self, runtime: &Runtime, name: &str) -> Guest {
        start_ready(self.build(runtime, name))
    }
}

/// Starts a guest that prints "ready", and returns once it has.
pub fn start_ready(builder: GuestBuilder) -> Guest {
    let guest = builder.console(Console::pipe()).start().unwrap();
    let mut ready = [0; 6];
    guest.take_console().unwrap().read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready\n");
    guest
}

/// Makes two tests of each function that is named, `process::NAME` and `kvm::NAME`. The function takes the backend. One
/// that is not named here is never used, which the compiler tells.
macro_rules! each_backend {
    ($($name:ident),* $(,)?) => {
        $crate::backend::each_backend!(process PROCESS $($name)*);
        $crate::backend::each_backend!(kvm KVM $($name)*);
    };
    ($module:ident $backend:ident $($name:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $name() {
                    let backend = &$crate::backend::$backend;
                    if (backend.is_there)() {
                        super::$name(backend);
                    }
                }
            )*
        }
    };
}
pub(crate) use each_backend;
