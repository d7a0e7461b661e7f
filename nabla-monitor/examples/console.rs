//! A console of one's own: marks each line that a guest prints with the guest's name:
//! `cargo run --example console -- IMAGE...`. All images run at the same time.

use nabla_monitor::{ByteSize, Console, Guest, Runtime};
use std::{
    env,
    io::{self, Write},
    path::Path,
};

/// Prints whole lines, with a name in front. One thread of the runtime calls it for all guests.
struct Lines {
    name: String,
    line: Vec<u8>,
}

impl Lines {
    fn print(&mut self) -> io::Result<()> {
        let line = String::from_utf8_lossy(&self.line);
        // What a guest writes is not to be trusted: no control sequence of it reaches the terminal.
        writeln!(io::stdout(), "{}: {}", self.name, line.escape_debug())?;
        self.line.clear();
        Ok(())
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            match byte {
                b'\n' => self.print()?,
                b'\r' => {}
                _ => self.line.push(byte),
            }
            // A guest that never ends its line does not fill the host's memory.
            if self.line.len() == 4096 {
                self.print()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Lines {
    /// The guest has ended: its last line may have no end.
    fn drop(&mut self) {
        if !self.line.is_empty() {
            let _ = self.print();
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::new();
    let start = |image: String| -> Result<(String, Guest), nabla_monitor::Error> {
        let name = Path::new(&image).file_name().map_or(image.clone(), |n| n.to_string_lossy().into_owned());
        let console = Console::writer(Lines { name: name.clone(), line: Vec::new() });
        Ok((name, runtime.guest(image).memory(ByteSize::mib(64)).console(console).start()?))
    };
    let guests = env::args().skip(1).map(start).collect::<Result<Vec<_>, _>>()?;
    for (name, guest) in &guests {
        // When this returns, the writer has got everything that the guest wrote.
        eprintln!("{name}: {}", guest.wait()?);
    }
    Ok(())
}
