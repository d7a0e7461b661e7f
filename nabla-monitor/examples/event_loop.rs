//! Starts many guests and waits for all of them in one thread: `cargo run --example event_loop -- IMAGE [COUNT]`.
//!
//! [`Guest::exit_fd`] is a descriptor that becomes readable when the guest has ended, so it goes into any event loop. Here it
//! is `epoll` itself.

use nabla_monitor::{ByteSize, Console, Guest, Runtime};
use rustix::event::epoll;
use std::{collections::HashMap, env};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let image = args.next().ok_or("usage: event_loop IMAGE [COUNT]")?;
    let count: u64 = args.next().map_or(Ok(100), |count| count.parse())?;

    let runtime = Runtime::new(); // one supervisor for all guests
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut guests: HashMap<u64, Guest> = HashMap::new();
    for number in 0..count {
        let guest = runtime
            .guest(&image)
            .memory(ByteSize::mib(16))
            .name(format!("guest-{number}"))
            .console(Console::null())
            .start()?;
        epoll::add(&set, &guest, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
        guests.insert(number, guest);
    }

    let mut events = Vec::with_capacity(64);
    while !guests.is_empty() {
        events.clear();
        match epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in &events {
            let number = event.data.u64();
            let Some(guest) = guests.get(&number) else { continue };
            if let Some(status) = guest.try_wait()? {
                println!("guest-{number}: {status}");
                epoll::delete(&set, guest)?;
                guests.remove(&number);
            }
        }
    }
    Ok(())
}
