//! The macro that makes a program a guest.

/// Makes a function the `main` of the guest, and declares the guest's devices.
///
/// Used once, in the program's root. The function takes nothing and returns a [`Termination`](crate::Termination). After it
/// stand the devices, each as `block` or `net` and a name of 1 to 67 ASCII letters and digits; up to 63, no
/// two of the same name. A monitor starts the guest only if it is given something for each of them.
///
/// ```ignore
/// nabla_guest::entry!(main);
/// nabla_guest::entry!(main, block "storage", net "service0");
/// ```
///
/// Besides the entry point and the manifest this defines the other notes, the panic handler and the global
/// allocator of the program. They are not in the crate itself, so that a library that depends on it can be
/// tested on the host, with `std`.
#[macro_export]
macro_rules! entry {
    ($main:path $(, $kind:ident $name:literal)* $(,)?) => {
        const _: () = {
            const DEVICES: &[$crate::__private::DeclaredDevice] =
                &[$($crate::__private::DeclaredDevice { kind: $crate::__device_type!($kind), name: $name }),*];

            #[used]
            #[unsafe(link_section = ".note.solo5.manifest")]
            static MANIFEST_NOTE: $crate::__private::ManifestNote<{ DEVICES.len() + 1 }> =
                $crate::__private::ManifestNote::new(DEVICES);

            #[used]
            #[unsafe(link_section = ".note.solo5.abi")]
            static ABI_NOTE: $crate::__private::AbiNote = $crate::__private::AbiNote::THIS;

            #[used]
            #[unsafe(link_section = ".note.solo5.not_openbsd")]
            static OPENBSD_NOTE: $crate::__private::OpenBsdNote = $crate::__private::OpenBsdNote::THIS;

            #[used]
            #[unsafe(link_section = ".interp")]
            static INTERPRETER: [u8; $crate::__private::INTERP.len()] = *$crate::__private::INTERP;

            unsafe extern "C" {
                /// Nowhere. link.ld throws away what refers to it, and every other link ends with an error that names it.
                #[link_name = "a build script is missing: see \"build.rs\" in the documentation of nabla-guest"]
                fn build_script();
            }

            // Linkers keep notes, whatever they take for unused.
            #[used]
            #[unsafe(link_section = ".note.nabla.build_script")]
            static BUILD_SCRIPT: unsafe extern "C" fn() = build_script;

            /// The entry point: no caller, no frame, the boot info in rdi, and rsp at the end of memory less
            /// 8, which is what a called function expects; aligned all the same, for whoever rounds less. link.ld calls it
            /// `_start`: here, that would be a second one beside libc's for who forgets the build script.
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            unsafe extern "C" fn __nabla_guest_start(boot_info: *const $crate::__private::BootInfo) -> ! {
                ::core::arch::naked_asm!(
                    ".cfi_startproc",
                    ".cfi_undefined rip",
                    "xor ebp, ebp",
                    "and rsp, -16",
                    "call {run}",
                    "ud2",
                    ".cfi_endproc",
                    run = sym run,
                )
            }

            unsafe extern "C" fn run(boot_info: *const $crate::__private::BootInfo) -> ! {
                // SAFETY: only the entry point calls this, with what the monitor gave it.
                unsafe { $crate::__private::start(boot_info, $main) }
            }

            #[panic_handler]
            fn panic(info: &::core::panic::PanicInfo<'_>) -> ! {
                $crate::__private::panic(info)
            }

            #[global_allocator]
            // SAFETY: this macro makes the program a guest, and a guest has one thread, which nothing
            // interrupts.
            static HEAP: $crate::__private::GlobalHeap = unsafe { $crate::__private::GlobalHeap::new() };
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __device_type {
    (block) => {
        $crate::__private::TYPE_BLOCK
    };
    (net) => {
        $crate::__private::TYPE_NET
    };
    ($other:ident) => {
        ::core::compile_error!(::core::concat!(
            "a device is `block \"name\"` or `net \"name\"`, not `",
            ::core::stringify!($other),
            "`"
        ))
    };
}
