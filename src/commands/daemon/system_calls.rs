//! The filter of system calls: what a process that serves does, and nothing else.
//!
//! A list of what is allowed, not of what is refused: a call that nobody thought of, or that a newer
//! kernel has, is refused by itself. Landlock knows nothing of most of them (who changes the mode or the
//! times of a file opens nothing), and holds not everywhere.
//!
//! A refused call fails with EPERM, and never ends the process. Test builds turn that round with
//! `MODELOCI_TEST_STRICT`: there the process ends, so that every test of a mount shows that the list is
//! complete.

use std::collections::BTreeMap;

use rustix::io::Errno;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

type Number = libc::c_long;
type Rules = BTreeMap<Number, Vec<SeccompRule>>;

/// Allowed whatever their arguments are.
const ALLOWED: &[Number] = &[
    // What is open is read, written, waited for and closed.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_fadvise64,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_flock,
    libc::SYS_memfd_create,
    // The pair of sockets that it has; it can open no other.
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    // Files are opened, listed, looked at, renamed and removed, where Landlock allows it.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getxattr,
    libc::SYS_fgetxattr,
    libc::SYS_mkdirat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mincore,
    // Threads, which wait for each other, and their signals.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_signalfd4,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Time, chance, and what it is itself.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// The same by older calls, which other processors do not have; musl makes some of them.
#[cfg(target_arch = "x86_64")]
const OLDER: &[Number] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_mkdir,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_time,
    libc::SYS_getrlimit,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[Number] = &[];

/// What a thread shares with the one that starts it: everything. Both glibc and musl ask for just that;
/// a new process asks for less, and one with all capabilities in a namespace of its own for more.
const THREAD: libc::c_int = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID;
/// Does nothing; musl sets it.
const NOTHING: libc::c_int = libc::CLONE_DETACHED;

/// What may be done with a descriptor besides: not to have signals sent to a process.
const FCNTL: [libc::c_int; 6] = [
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
];
/// Of devices: not to type into a terminal.
const IOCTL: [libc::Ioctl; 3] = [libc::TCGETS, libc::FIOCLEX, libc::FIONBIO];

/// What is done with connections to a registry, whatever the arguments are.
const CONNECTING: &[Number] = &[
    libc::SYS_connect,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
];
/// Of what sockets may be: over the network, and streams.
const FAMILIES: [libc::c_int; 2] = [libc::AF_INET, libc::AF_INET6];
const SOCKET_TYPE: u64 = 0xf;
/// What is set of them.
const SOCKET_OPTIONS: [(libc::c_int, libc::c_int); 3] = [
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::SOL_SOCKET, libc::SO_RCVTIMEO),
    (libc::SOL_SOCKET, libc::SO_SNDTIMEO),
];

/// One argument of a call, by its place.
fn argument(
    place: u8,
    length: SeccompCmpArgLen,
    is: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(place, length, is, value)
}

/// What connecting by TCP takes, and no other kind of socket.
fn connecting() -> Result<Rules, BackendError> {
    let mut rules: Rules = CONNECTING
        .iter()
        .map(|number| (*number, Vec::new()))
        .collect();
    let mut allow = |number, conditions| -> Result<(), BackendError> {
        let rule = SeccompRule::new(conditions)?;
        rules.entry(number).or_default().push(rule);
        Ok(())
    };
    let bits = |flags: libc::c_int| u64::from(flags.cast_unsigned());
    for family in FAMILIES {
        let family = argument(0, Dword, Eq, bits(family))?;
        let stream = argument(1, Dword, MaskedEq(SOCKET_TYPE), bits(libc::SOCK_STREAM))?;
        let usual = argument(2, Dword, Eq, 0)?;
        allow(libc::SYS_socket, vec![family, stream, usual])?;
    }
    for (level, option) in SOCKET_OPTIONS {
        let level = argument(1, Dword, Eq, bits(level))?;
        let option = argument(2, Dword, Eq, bits(option))?;
        allow(libc::SYS_setsockopt, vec![level, option])?;
    }
    Ok(rules)
}

/// What is allowed, and with which arguments.
fn allowed() -> Result<Rules, BackendError> {
    let all = ALLOWED.iter().chain(OLDER);
    let mut rules: Rules = all.map(|number| (*number, Vec::new())).collect();
    let mut allow = |number, conditions| -> Result<(), BackendError> {
        let rule = SeccompRule::new(conditions)?;
        rules.entry(number).or_default().push(rule);
        Ok(())
    };
    let bits = |flags: libc::c_int| u64::from(flags.cast_unsigned());
    let more = MaskedEq(bits(!NOTHING));
    allow(
        libc::SYS_clone,
        vec![argument(0, Dword, more, bits(THREAD))?],
    )?;
    for command in FCNTL {
        let command = argument(1, Dword, Eq, bits(command))?;
        allow(libc::SYS_fcntl, vec![command])?;
    }
    for request in IOCTL {
        let request = argument(1, Dword, Eq, request)?;
        allow(libc::SYS_ioctl, vec![request])?;
    }
    for option in [libc::PR_SET_NAME, libc::PR_GET_NAME] {
        let option = argument(0, Dword, Eq, bits(option))?;
        allow(libc::SYS_prctl, vec![option])?;
    }
    // A process that aborts sends itself a signal.
    let us = bits(rustix::process::getpid().as_raw_nonzero().get());
    allow(libc::SYS_tgkill, vec![argument(0, Dword, Eq, us)?])?;
    // Signal 0, which only asks whether somebody is there.
    allow(libc::SYS_kill, vec![argument(1, Dword, Eq, 0)?])?;
    // Limits of its own, and only read.
    allow(
        libc::SYS_prlimit64,
        vec![argument(0, Dword, Eq, 0)?, argument(2, Qword, Eq, 0)?],
    )?;
    Ok(rules)
}

fn program(
    rules: Rules,
    others: SeccompAction,
    these: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, others, these, arch)?.try_into()
}

/// What becomes of a call that is not allowed.
fn refusal() -> SeccompAction {
    #[cfg(debug_assertions)]
    if std::env::var_os("MODELOCI_TEST_STRICT").is_some() {
        return SeccompAction::KillProcess;
    }
    SeccompAction::Errno(Errno::PERM.raw_os_error().cast_unsigned())
}

/// Puts the filter in force for this thread and those that it starts. With `network`, connections may be
/// made.
///
/// # Errors
/// Why it is not in force, in words.
pub(super) fn filter(network: bool) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    // A filter cannot look at the flags of clone3: without it glibc calls clone.
    let newer: Rules = [libc::SYS_clone3].map(|number| (number, Vec::new())).into();
    let missing = SeccompAction::Errno(Errno::NOSYS.raw_os_error().cast_unsigned());
    let first = program(newer.clone(), SeccompAction::Allow, missing).map_err(|e| text(&e))?;
    let mut rules = allowed().map_err(|e| text(&e))?;
    if network {
        rules.extend(connecting().map_err(|e| text(&e))?);
    }
    // Of two filters the stricter one counts.
    rules.extend(newer);
    // What the second one is put in force by is refused from then on.
    let second = program(rules, refusal(), SeccompAction::Allow).map_err(|e| text(&e))?;
    for program in [first, second] {
        seccompiler::apply_filter(&program).map_err(|e| text(&e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Everything about a thread is its process's, and no new process is a thread.
    #[test]
    fn e18_only_threads_are_started() {
        let is_allowed = |flags: libc::c_int| flags & !NOTHING == THREAD;
        assert!(is_allowed(THREAD | NOTHING));
        for flag in [
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWNS,
            libc::CLONE_VFORK,
            libc::CLONE_PTRACE,
            libc::CLONE_PARENT,
        ] {
            assert!(!is_allowed(THREAD | flag));
        }
        assert!(!is_allowed(libc::SIGCHLD));
    }

    #[test]
    fn e18_the_filter_can_be_made() {
        let mut rules = allowed().unwrap();
        assert!(!rules.contains_key(&libc::SYS_clone3));
        assert!(!rules.contains_key(&libc::SYS_socket));
        let connecting = connecting().unwrap();
        assert!(connecting.keys().all(|number| !rules.contains_key(number)));
        rules.extend(connecting);
        program(rules, refusal(), SeccompAction::Allow).unwrap();
    }
}
