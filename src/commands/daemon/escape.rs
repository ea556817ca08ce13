//! What an attacker would try first, for the tests: compiled only where debug assertions are, and
//! never into a release.
//!
//! With `MODELOCI_TEST_ESCAPE` set to a directory, a process that serves tries each once it serves,
//! and logs `escape: NAME: done` or `escape: NAME: refused (…)`. One that prefetches tries what concerns
//! files before it follows orders; it has no log, and says so on its standard output.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

/// Tries them all, and logs how each has ended.
pub(crate) fn try_all() {
    let Some(dir) = std::env::var_os("MODELOCI_TEST_ESCAPE").map(PathBuf::from) else {
        return;
    };
    let keeper = rustix::process::getppid().unwrap_or(Pid::INIT);
    open_files(&dir);
    reach_services(&dir);
    change_files(&dir);
    reach_processes(keeper);
    gain_rights();
    // The last one, which the tests wait for.
    tell("read the keeper's memory", || {
        open(format!("/proc/{keeper}/mem").into(), OFlags::RDONLY)
    });
}

/// Tries what the process that prefetches could want of files.
pub(crate) fn try_files() {
    let Some(dir) = std::env::var_os("MODELOCI_TEST_ESCAPE").map(PathBuf::from) else {
        return;
    };
    HAS_NO_LOG.store(true, Ordering::Relaxed);
    open_files(&dir);
    change_files(&dir);
    tell("all was tried", || Ok(()));
}

/// Set in a process that says on its standard output what others log.
static HAS_NO_LOG: AtomicBool = AtomicBool::new(false);

fn tell(what: &str, attempt: impl FnOnce() -> io::Result<()>) {
    let told = match attempt() {
        Ok(()) => format!("escape: {what}: done"),
        Err(error) => format!("escape: {what}: refused ({error})"),
    };
    match HAS_NO_LOG.load(Ordering::Relaxed) {
        false => log::info!("{told}"),
        true => drop(writeln!(io::stdout(), "{told}")),
    }
}

fn open(path: PathBuf, flags: OFlags) -> io::Result<()> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))?;
    Ok(())
}

fn open_files(dir: &Path) {
    tell("read /etc/passwd", || {
        open("/etc/passwd".into(), OFlags::RDONLY)
    });
    tell("read a file beside the archive", || {
        open(dir.join("secret"), OFlags::RDONLY)
    });
    tell("write a file", || open(dir.join("secret"), OFlags::WRONLY));
    tell("create a file", || {
        open(dir.join("created"), OFlags::WRONLY | OFlags::CREATE)
    });
    tell("create a file without a name", || {
        open(dir.into(), OFlags::WRONLY | OFlags::TMPFILE)
    });
    tell("remove a file", || {
        Ok(rustix::fs::unlink(dir.join("victim"))?)
    });
    tell("list a directory", || {
        open("/".into(), OFlags::RDONLY | OFlags::DIRECTORY)
    });
}

fn reach_services(dir: &Path) {
    tell("start a program", || {
        Command::new("/bin/true").status().map(drop)
    });
    tell("connect to a socket", || {
        UnixStream::connect(dir.join("socket")).map(drop)
    });
    tell("listen", || TcpListener::bind("127.0.0.1:0").map(drop));
    tell("unmount", || {
        let mounted = dir.join("mounted");
        Ok(rustix::mount::unmount(mounted, UnmountFlags::DETACH)?)
    });
}

/// Makes a system call with numbers and addresses as its arguments.
fn call(number: libc::c_long, arguments: &[usize]) -> io::Result<usize> {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let [a, b, c, d, e, f] = all;
    // SAFETY: the addresses that callers pass lead to memory of theirs that is alive meanwhile, as
    // large as each call wants it.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result.cast_unsigned() as usize),
    }
}

/// Makes a call that may succeed, and forgets its result.
fn tell_call(what: &str, number: libc::c_long, arguments: &[usize]) {
    tell(what, || call(number, arguments).map(drop));
}

/// What changes a file without opening it. Everything is done to what it is already.
fn change_files(dir: &Path) {
    let path = CString::new(dir.join("secret").as_os_str().as_bytes()).unwrap_or_default();
    let path = path.as_ptr() as usize;
    let here = libc::AT_FDCWD as isize as usize;
    let (uid, gid) = (
        rustix::process::geteuid().as_raw() as usize,
        rustix::process::getegid().as_raw() as usize,
    );
    let name = c"user.modeloci.escape".as_ptr() as usize;
    #[cfg(target_arch = "x86_64")]
    {
        tell_call("chmod", libc::SYS_chmod, &[path, 0o644]);
        tell_call("chown", libc::SYS_chown, &[path, uid, gid]);
        tell_call("utimes", libc::SYS_utimes, &[path, 0]);
    }
    tell_call("fchmodat", libc::SYS_fchmodat, &[here, path, 0o644]);
    tell_call("fchownat", libc::SYS_fchownat, &[here, path, uid, gid, 0]);
    tell_call("utimensat", libc::SYS_utimensat, &[here, path, 0, 0]);
    tell_call("setxattr", libc::SYS_setxattr, &[path, name, name, 1, 0]);
    tell_call("removexattr", libc::SYS_removexattr, &[path, name]);
}

/// What changes other processes, or makes some. Everything is set to what it is already.
fn reach_processes(keeper: Pid) {
    tell("signal the keeper", || {
        // One that nobody heeds.
        Ok(rustix::process::kill_process(keeper, Signal::URG)?)
    });
    let pid = keeper.as_raw_nonzero().get() as usize;
    let mut limit = [0_u64; 2];
    let at = limit.as_mut_ptr() as usize;
    let files = libc::RLIMIT_NOFILE as usize;
    tell("limit the keeper", || {
        call(libc::SYS_prlimit64, &[pid, files, 0, at])?;
        call(libc::SYS_prlimit64, &[pid, files, at, 0]).map(drop)
    });
    tell_call("tgkill", libc::SYS_tgkill, &[pid, pid, 0]);
    tell_call("setpriority", libc::SYS_setpriority, &[0, pid, 0]);
    let mut mask = [0_u64; 128];
    let at = mask.as_mut_ptr() as usize;
    tell("sched_setaffinity", || {
        let length = call(libc::SYS_sched_getaffinity, &[pid, size_of_val(&mask), at])?;
        call(libc::SYS_sched_setaffinity, &[pid, length, at]).map(drop)
    });
    tell("pidfd_open", || {
        let fd = call(libc::SYS_pidfd_open, &[pid, 0])?;
        call(libc::SYS_close, &[fd]).map(drop)
    });
    for (what, flags) in [
        ("fork", libc::SIGCHLD),
        ("clone(CLONE_NEWUSER)", libc::SIGCHLD | libc::CLONE_NEWUSER),
    ] {
        tell(what, || {
            new_process(|| call(libc::SYS_clone, &[flags as usize]))
        });
    }
    tell("clone3", || {
        // As `struct clone_args` begins: flags, pidfd, child_tid, parent_tid, exit_signal.
        let mut arguments = [0_u64; 8];
        arguments[4] = libc::SIGCHLD as u64;
        let at = arguments.as_ptr() as usize;
        new_process(|| call(libc::SYS_clone3, &[at, size_of_val(&arguments)]))
    });
}

/// Starts a process that ends at once.
fn new_process(start: impl FnOnce() -> io::Result<usize>) -> io::Result<()> {
    match start()? {
        // SAFETY: ends the child, which has done nothing since it was made.
        0 => unsafe { libc::_exit(0) },
        child => call(libc::SYS_wait4, &[child, 0, 0, 0]).map(drop),
    }
}

/// What opens a part of the kernel, or a way to more rights.
fn gain_rights() {
    for (what, number) in [
        ("shmget", libc::SYS_shmget),
        ("semget", libc::SYS_semget),
        ("msgget", libc::SYS_msgget),
    ] {
        tell(what, || {
            let (size, flags) = match number {
                libc::SYS_shmget => (4096, 0o600),
                libc::SYS_semget => (1, 0o600),
                _ => (0o600, 0),
            };
            let id = call(number, &[libc::IPC_PRIVATE as usize, size, flags])?;
            let (remove, place) = match number {
                libc::SYS_shmget => (libc::SYS_shmctl, 1),
                libc::SYS_semget => (libc::SYS_semctl, 2),
                _ => (libc::SYS_msgctl, 1),
            };
            let mut arguments = [id, 0, 0, 0];
            arguments[place] = libc::IPC_RMID as usize;
            call(remove, &arguments).map(drop)
        });
    }
    let follow = libc::PR_SET_PDEATHSIG as usize;
    tell_call("outlive the keeper", libc::SYS_prctl, &[follow, 0]);
    tell_call("unshare", libc::SYS_unshare, &[0]);
    tell_call("personality", libc::SYS_personality, &[0xffff_ffff]);
    tell("inotify_init1", || {
        let fd = call(libc::SYS_inotify_init1, &[0])?;
        call(libc::SYS_close, &[fd]).map(drop)
    });
    tell("setuid", || {
        let uid = rustix::process::geteuid().as_raw() as usize;
        call(libc::SYS_setuid, &[uid]).map(drop)
    });
}
