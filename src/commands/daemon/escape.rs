//! What an attacker would try first, for the tests: compiled only where debug assertions are, and
//! never into a release.
//!
//! With `MODELOCI_TEST_ESCAPE` set to a directory, a process that serves tries each once it serves,
//! and logs `escape: NAME: done` or `escape: NAME: refused (…)`.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use rustix::process::Pid;

/// Tries them all.
pub(crate) fn try_all() {
    let Some(dir) = std::env::var_os("MODELOCI_TEST_ESCAPE").map(PathBuf::from) else {
        return;
    };
    let keeper = rustix::process::getppid().unwrap_or(Pid::INIT);
    let open = |path: PathBuf, flags: OFlags| {
        rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))
    };
    tell("read /etc/passwd", || {
        open("/etc/passwd".into(), OFlags::RDONLY)?;
        Ok(())
    });
    tell("read a file beside the archive", || {
        open(dir.join("secret"), OFlags::RDONLY)?;
        Ok(())
    });
    tell("write a file", || {
        open(dir.join("secret"), OFlags::WRONLY)?;
        Ok(())
    });
    tell("create a file", || {
        open(dir.join("created"), OFlags::WRONLY | OFlags::CREATE)?;
        Ok(())
    });
    tell("create a file without a name", || {
        open(dir.clone(), OFlags::WRONLY | OFlags::TMPFILE)?;
        Ok(())
    });
    tell("remove a file", || {
        Ok(rustix::fs::unlink(dir.join("victim"))?)
    });
    tell("list a directory", || {
        open("/".into(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(())
    });
    tell("start a program", || {
        Command::new("/bin/true").status().map(drop)
    });
    tell("connect to a socket", || {
        UnixStream::connect(dir.join("socket")).map(drop)
    });
    tell("listen", || TcpListener::bind("127.0.0.1:0").map(drop));
    tell("unmount", || {
        Ok(rustix::mount::unmount(
            dir.join("mounted"),
            UnmountFlags::DETACH,
        )?)
    });
    tell("signal the keeper", || {
        // One that does nothing but to ask.
        Ok(rustix::process::test_kill_process(keeper)?)
    });
    tell("read the keeper's memory", || {
        open(format!("/proc/{keeper}/mem").into(), OFlags::RDONLY)?;
        Ok(())
    });
}

fn tell(what: &str, attempt: impl FnOnce() -> io::Result<()>) {
    match attempt() {
        Ok(()) => log::info!("escape: {what}: done"),
        Err(error) => log::info!("escape: {what}: refused ({error})"),
    }
}
