//! The console: bytes that only go out.

use core::fmt::{self, Write};

use crate::sys;

/// Bytes that are collected before they go to the monitor: most lines then take a single call.
const BUFFER_SIZE: usize = 256;

/// A writer for one call of `print!`. Nothing is held back from one call to the next.
struct Console {
    buffer: [u8; BUFFER_SIZE],
    len: usize,
}

impl Console {
    const fn new() -> Self {
        Self { buffer: [0; BUFFER_SIZE], len: 0 }
    }

    fn write_bytes(&mut self, bytes: &[u8]) {
        if bytes.len() > BUFFER_SIZE - self.len {
            self.flush();
        }
        match self.buffer[self.len..].get_mut(..bytes.len()) {
            Some(free) => {
                free.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => sys::console_write(bytes),
        }
    }

    fn flush(&mut self) {
        sys::console_write(&self.buffer[..self.len]);
        self.len = 0;
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write_bytes(text.as_bytes());
        Ok(())
    }
}

/// Prints to the console, for the macros.
#[doc(hidden)]
pub fn print(arguments: fmt::Arguments<'_>) {
    let mut console = Console::new();
    // The console itself never fails; an implementation of a formatting trait that does is cut off there.
    let _ = console.write_fmt(arguments);
    console.flush();
}

/// Writes bytes to the console as they are.
///
/// A console that is closed or broken swallows what it gets; the guest is not told.
pub fn write(bytes: &[u8]) {
    sys::console_write(bytes);
}

/// Prints to the console, like the macro of the same name in `std`.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => {
        $crate::console::print(::core::format_args!($($arg)*))
    };
}

/// Prints a line to the console, like the macro of the same name in `std`.
#[macro_export]
macro_rules! println {
    () => {
        $crate::print!("\n")
    };
    ($($arg:tt)*) => {
        $crate::console::print(::core::format_args!("{}\n", ::core::format_args!($($arg)*)))
    };
}
