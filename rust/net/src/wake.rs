//! Waiting for a socket in a way that another thread can end at once.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Ends the wait of a receiver from any thread, the current one or, if none is under way, the next.
///
/// Cheap to clone; waking twice before the receiver looks is waking once. It outlives the receiver without harm.
#[derive(Clone, Debug)]
pub struct Waker(Arc<system::Signal>);

impl Waker {
    pub fn wake(&self) {
        self.0.raise();
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Readable,
    Woken,
    TimedOut,
}

/// The side of a [`Waker`] that waits.
#[derive(Debug)]
pub(crate) struct WakeUp(Arc<system::Signal>);

impl WakeUp {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(system::Signal::new()?)))
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.0))
    }

    /// Waits until the socket has something to read, a waker is used, or the deadline is there; `None` waits for ever.
    /// A wake-up is used up by the wait that it ends.
    pub(crate) fn wait(&self, socket: &UdpSocket, deadline: Option<Instant>) -> io::Result<Waited> {
        let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        self.0.wait(socket, left)
    }
}

#[cfg(unix)]
mod system {
    use std::fs::File;
    use std::io::{self, Read, Write};
    use std::net::UdpSocket;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    use super::{Duration, Waited};

    /// Two ends of something readable: an eventfd (both ends are it) or a pipe.
    #[derive(Debug)]
    pub(super) struct Signal {
        read_end: File,
        write_end: File,
    }

    impl Signal {
        #[cfg(target_os = "linux")]
        pub(super) fn new() -> io::Result<Self> {
            // SAFETY: takes no pointers.
            let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the descriptor is fresh and belongs to nobody else.
            let event = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
            Ok(Self {
                read_end: event.try_clone()?,
                write_end: event,
            })
        }

        #[cfg(not(target_os = "linux"))]
        pub(super) fn new() -> io::Result<Self> {
            let mut ends: [libc::c_int; 2] = [0; 2];
            // SAFETY: the array has room for the two descriptors that the call writes.
            if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
                return Err(io::Error::last_os_error());
            }
            for fd in ends {
                // SAFETY: both descriptors are open and ours.
                unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
                // SAFETY: as above.
                unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) };
            }
            // SAFETY: the descriptor is fresh and belongs to nobody else.
            let read_end = File::from(unsafe { OwnedFd::from_raw_fd(ends[0]) });
            // SAFETY: as above.
            let write_end = File::from(unsafe { OwnedFd::from_raw_fd(ends[1]) });
            Ok(Self { read_end, write_end })
        }

        pub(super) fn raise(&self) {
            // A full pipe or counter is already readable, which is all that is wanted.
            let _ = (&self.write_end).write(&1_u64.to_ne_bytes());
        }

        fn lower(&self) {
            let mut unread = [0; 64];
            while matches!((&self.read_end).read(&mut unread), Ok(length) if length == unread.len()) {}
        }

        pub(super) fn wait(
            &self,
            socket: &UdpSocket,
            left: impl Fn() -> Option<Duration>,
        ) -> io::Result<Waited> {
            let watch = |fd| libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            };
            let mut watched = [watch(self.read_end.as_raw_fd()), watch(socket.as_raw_fd())];
            loop {
                match poll(&mut watched, left()) {
                    Ok(0) => return Ok(Waited::TimedOut),
                    Ok(_) if watched[0].revents != 0 => {
                        self.lower();
                        return Ok(Waited::Woken);
                    }
                    // An error of the socket counts as readable: reading reports it.
                    Ok(_) => return Ok(Waited::Readable),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Exact to what the kernel's timers give, so that a short deadline is not rounded up to a millisecond.
    #[cfg(target_os = "linux")]
    fn poll(watched: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<libc::c_int> {
        let timeout = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs().min(i32::MAX as u64) as _, // `time_t` may have 32 bits
            tv_nsec: timeout.subsec_nanos() as _,
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the slice and its length belong together; the time is null or points to the value above.
        let ready = unsafe {
            libc::ppoll(
                watched.as_mut_ptr(),
                watched.len() as libc::nfds_t,
                timeout,
                std::ptr::null(),
            )
        };
        if ready < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(ready)
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn poll(watched: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<libc::c_int> {
        // Rounded up: a wait that ends early would turn the last millisecond into a spin.
        let timeout = timeout.map_or(-1, |timeout| {
            libc::c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
        });
        // SAFETY: the slice and its length belong together.
        let ready = unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, timeout) };
        if ready < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(ready)
        }
    }
}

#[cfg(windows)]
mod system {
    use std::io;
    use std::net::UdpSocket;
    use std::os::windows::io::{AsRawHandle, AsRawSocket, FromRawHandle, OwnedHandle};
    use std::ptr;

    use windows_sys::Win32::Foundation::{WAIT_FAILED, WAIT_OBJECT_0, WAIT_TIMEOUT};
    use windows_sys::Win32::Networking::WinSock::{FD_READ, WSAEventSelect};
    use windows_sys::Win32::System::Threading::{CreateEventW, INFINITE, SetEvent, WaitForMultipleObjects};

    use super::{Duration, Waited};

    /// An event that wakers set, and one that the system sets when the socket has something to read. A wait that one of
    /// them ends clears it.
    #[derive(Debug)]
    pub(super) struct Signal {
        woken: OwnedHandle,
        arrived: OwnedHandle,
    }

    impl Signal {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self {
                woken: event()?,
                arrived: event()?,
            })
        }

        pub(super) fn raise(&self) {
            // SAFETY: the handle is open while it is borrowed. It is an event, so that this does not fail.
            unsafe { SetEvent(self.woken.as_raw_handle()) };
        }

        pub(super) fn wait(
            &self,
            socket: &UdpSocket,
            left: impl Fn() -> Option<Duration>,
        ) -> io::Result<Waited> {
            let events = [self.woken.as_raw_handle(), self.arrived.as_raw_handle()];
            let (socket, arrived) = (socket.as_raw_socket() as usize, events[1] as isize);
            // What came before this call sets the event, too.
            // SAFETY: socket and event are open while they are borrowed.
            if unsafe { WSAEventSelect(socket, arrived, FD_READ as i32) } != 0 {
                return Err(io::Error::last_os_error());
            }
            loop {
                // Rounded up: a wait that ends early would turn the last millisecond into a spin.
                let timeout = left().map_or(INFINITE, |left| {
                    u32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(INFINITE - 1)
                });
                // SAFETY: the array and its length belong together, and the handles are open.
                match unsafe { WaitForMultipleObjects(events.len() as u32, events.as_ptr(), 0, timeout) } {
                    WAIT_OBJECT_0 => return Ok(Waited::Woken),
                    WAIT_FAILED => return Err(io::Error::last_os_error()),
                    WAIT_TIMEOUT if left().is_some_and(|left| left.is_zero()) => return Ok(Waited::TimedOut),
                    WAIT_TIMEOUT => {}
                    _ => return Ok(Waited::Readable),
                }
            }
        }
    }

    fn event() -> io::Result<OwnedHandle> {
        // SAFETY: takes no pointers but to what may be absent.
        let handle = unsafe { CreateEventW(ptr::null(), 0, 0, ptr::null()) };
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the handle is fresh and belongs to nobody else.
        Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn silent_socket() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    #[test]
    fn a_wake_up_ends_an_endless_wait_once() {
        let (wake_up, socket) = (WakeUp::new().unwrap(), silent_socket());
        let waker = wake_up.waker();
        let other = thread::spawn(move || {
            waker.wake();
            waker.wake();
        });
        assert_eq!(wake_up.wait(&socket, None).unwrap(), Waited::Woken);
        other.join().unwrap();
        // Of the two calls the second may have come after the first wait: at most one more wake-up is left.
        let soon = || Some(Instant::now() + Duration::from_millis(1));
        let _ = wake_up.wait(&socket, soon()).unwrap();
        assert_eq!(wake_up.wait(&socket, soon()).unwrap(), Waited::TimedOut);
    }

    #[test]
    fn many_wake_ups_before_the_wait_are_one() {
        let (wake_up, socket) = (WakeUp::new().unwrap(), silent_socket());
        for _ in 0..100_000 {
            wake_up.waker().wake();
        }
        assert_eq!(wake_up.wait(&socket, None).unwrap(), Waited::Woken);
        assert_eq!(
            wake_up.wait(&socket, Some(Instant::now())).unwrap(),
            Waited::TimedOut
        );
    }

    #[test]
    fn a_datagram_ends_the_wait() {
        let (wake_up, socket) = (WakeUp::new().unwrap(), silent_socket());
        UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .send_to(b"x", socket.local_addr().unwrap())
            .unwrap();
        assert_eq!(wake_up.wait(&socket, None).unwrap(), Waited::Readable);
    }

    #[test]
    fn a_short_deadline_is_kept() {
        let (wake_up, socket) = (WakeUp::new().unwrap(), silent_socket());
        let start = Instant::now();
        let deadline = start + Duration::from_micros(1_500);
        assert_eq!(wake_up.wait(&socket, Some(deadline)).unwrap(), Waited::TimedOut);
        assert!(Instant::now() >= deadline);
    }
}

/// The writing end of a pair of sockets whose other end the host's event loop watches.
#[derive(Debug)]
pub struct SignalSocket(socket2::Socket);

impl SignalSocket {
    /// Takes a duplicate of a descriptor; the original stays the caller's.
    #[cfg(unix)]
    pub fn duplicate(descriptor: i32) -> io::Result<Self> {
        use std::os::fd::BorrowedFd;
        if descriptor < 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the caller names an open descriptor, which is only used for the call below.
        let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let socket = socket2::Socket::from(borrowed.try_clone_to_owned()?);
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Not there yet: the host polls instead.
    #[cfg(not(unix))]
    pub fn duplicate(_descriptor: i32) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Writes one byte. A full socket already says what there is to say.
    pub fn signal(&self) {
        let _ = self.0.send(&[1]);
    }
}
