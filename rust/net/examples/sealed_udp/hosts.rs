//! Two processes, the second one perhaps on another host: in another network namespace.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use sealcast_core::crypto::Suite;
use sealcast_net::steady_clock;

use crate::Failure;
use crate::common::{SECOND, World};
use crate::ends::{self, Plan};

/// What a channel has that says nothing else.
const RETENTION_BYTES: u64 = 256 << 20;
/// Messages that wait for sealing: enough for a few blocks, and little enough to stay in the processor's cache.
const QUEUE_BYTES: u64 = 1 << 20;

/// Runs both ends, and waits for both.
pub(crate) fn run(plan: &Plan, namespace: Option<&str>) -> Result<(), Failure> {
    let mut world = settled();
    let (mut near, mut far) = UnixStream::pair()?;
    // SAFETY: this process has one thread, so that the other one finds no lock held.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(io::Error::last_os_error().into()),
        0 => {
            drop(near);
            end_with_parent()?;
            if let Some(namespace) = namespace {
                enter(namespace)?;
            }
            let receiver = world.subscribers[0].receiver.take().ok_or("no subscriber")?;
            drop(world);
            ends::subscribe(receiver, plan, || far.write_all(&[1]))
        }
        _ => {
            drop(far);
            let sender = world.publishers[0].sender.take().ok_or("no publisher")?;
            drop(world);
            let published = near
                .read_exact(&mut [0])
                .map_err(|_| Failure::from("the subscriber has ended before it was ready"))
                .and_then(|()| ends::publish(sender, plan));
            wait_for(child).and(published)
        }
    }
}

/// A publisher whose stream a subscriber knows, both with all they asked the key server for, at the present time.
fn settled() -> World {
    let start = steady_clock() - 10 * SECOND;
    let mut world = World::starting_at(start, 1, Suite::Aes256GcmBlake3);
    world
        .key_server
        .set_policy(|policy| policy.retention_bytes = RETENTION_BYTES);
    let publisher = world.add_publisher();
    world.start_publisher(publisher, |config| config.queue_bytes = QUEUE_BYTES);
    world.add_subscriber();
    world.settle();
    world.send(publisher, 1, 100);
    world.run_for(steady_clock() - world.now);
    assert_eq!(
        world.subscribers[0].messages.len(),
        1,
        "the first message has come"
    );
    world
}

/// The process goes when the one that started it does.
fn end_with_parent() -> io::Result<()> {
    // SAFETY: takes numbers only.
    let done = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    told(done)
}

fn enter(namespace: &str) -> io::Result<()> {
    let file = File::open(namespace)?;
    // SAFETY: the descriptor is open; the call changes what this thread, the only one, opens sockets in.
    let done = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    told(done)
}

fn told(done: libc::c_int) -> io::Result<()> {
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn wait_for(child: libc::pid_t) -> Result<(), Failure> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for what the call writes.
    if unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
        return Err(io::Error::last_os_error().into());
    }
    if status == 0 {
        Ok(())
    } else {
        Err("the subscriber has failed".into())
    }
}
