//! Threads for one piece of work.

use std::thread;

/// Runs `job` on so many threads, this one among them. Where the system refuses more, fewer do it.
pub fn run(threads: usize, job: impl Fn() + Sync) {
    thread::scope(|scope| {
        for _ in 1..threads {
            if thread::Builder::new().spawn_scoped(scope, &job).is_err() {
                break;
            }
        }
        job();
    });
}
