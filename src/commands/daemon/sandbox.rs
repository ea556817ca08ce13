//! What a process gives up before it reads anything that others wrote.
//!
//! Whoever takes over the decoder of a server then has a process that can read the archive, write
//! the indexes, and answer what is asked of the mount: it opens nothing else, starts no program,
//! connects to nobody, and reaches no other process. Each protection holds by itself, and where the
//! kernel has none of a kind, or lets us use none, the others hold all the same; which ones do is
//! part of the mount's [`Status`](modeloci::mount::Status).
//!
//! - `no_new_privs`: no setuid program gives back what was given up.
//! - No capabilities, not even in the bounding set. Only for an image-layout directory whose files
//!   root could not read otherwise, `CAP_DAC_READ_SEARCH` stays.
//! - Landlock (Linux 5.13): files, TCP ports, abstract sockets and signals, as far as the kernel
//!   knows how to refuse each. `/proc` may be read, in which a server looks after itself and after
//!   readers that were killed; what is secret there Landlock refuses by itself.
//! - A filter of system calls: what opens sockets, since Landlock does not refuse a socket with a
//!   path, behind which a service may do for root whatever it is asked; and what gets at other
//!   processes or programs.
//! - No core dumps: neither into a file, nor to a program that is named in `core_pattern`, which
//!   heeds no limit.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use modeloci::mount::Protections;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// The newest version of Landlock that is asked for; kernels without it do what they can.
const LANDLOCK: ABI = ABI::V7;
/// Directories that are read besides those that a process is given.
const SYSTEM: [&str; 2] = ["/proc", "/sys/fs/cgroup"];
/// What tells which memory a core dump holds (core(5)).
const COREDUMP_FILTER: &str = "/proc/self/coredump_filter";

/// What a process may still open.
#[derive(Debug, Default)]
pub(crate) struct Needs<'a> {
    /// Files, and directories with all that is in them, to be read.
    pub(crate) read: Vec<BorrowedFd<'a>>,
    /// Directories to be listed.
    pub(crate) list: Vec<BorrowedFd<'a>>,
    /// Directories in which files are made, written, renamed and removed.
    pub(crate) write: Vec<BorrowedFd<'a>>,
    /// The one capability that is kept: to read what others have closed to root.
    pub(crate) read_all: bool,
}

/// Gives up what is not among the needs. Must be called before the process has other threads, which
/// would keep it.
pub(crate) fn enter(needs: &Needs<'_>) -> Protections {
    // Landlock and the filter may be refused to whoever could still gain privileges.
    let no_new_privs = rustix::thread::set_no_new_privs(true).is_ok();
    let no_core_dump = leave_no_core_dump();
    let capabilities = drop_capabilities(needs.read_all);
    Protections {
        no_new_privs,
        capabilities: capabilities.to_string(),
        landlock: confine(needs).unwrap_or(0),
        system_calls: filter_system_calls(),
        no_core_dump,
    }
}

/// What the keeper of root needs never: the rights of a program that it might start.
pub(crate) fn enter_as_keeper() {
    leave_no_core_dump();
    // For other users a setuid program mounts, and unmounts at the end.
    if rustix::process::geteuid().is_root()
        && let Err(error) = rustix::thread::set_no_new_privs(true)
    {
        log::debug!("new privileges stay possible: {error}");
    }
}

/// Both for files and for programs that take dumps.
fn leave_no_core_dump() -> bool {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let limited = setrlimit(Resource::Core, none).is_ok();
    std::fs::write(COREDUMP_FILTER, "0").is_ok() && limited
}

fn drop_capabilities(read_all: bool) -> &'static str {
    let kept = match read_all {
        true => CapabilitySet::DAC_READ_SEARCH,
        false => CapabilitySet::empty(),
    };
    // Each needs CAP_SETPCAP, which is given up last; who does not have it has nothing to drop.
    for capability in CapabilitySet::all() & !kept {
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let _ = rustix::thread::clear_ambient_capability_set();
    let had = rustix::thread::capabilities(None);
    let kept = had.map_or(kept, |had| had.permitted & kept);
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    match rustix::thread::set_capabilities(None, sets) {
        Ok(()) if kept.is_empty() => "none",
        Ok(()) => "dac_read_search",
        Err(_) => "kept",
    }
}

/// Returns the version that is in force.
fn confine(needs: &Needs<'_>) -> Result<i32, landlock::RulesetError> {
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let writing = reading
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::RemoveFile;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?;
    let system = SYSTEM.iter().filter_map(|path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(*path, flags, Mode::empty()).ok()
    });
    let system: Vec<OwnedFd> = system.collect();
    let system = system.iter().map(AsFd::as_fd);
    let list = needs.list.iter().map(|fd| (*fd, AccessFs::ReadDir.into()));
    let write = needs.write.iter().map(|fd| (*fd, writing));
    let read = needs.read.iter().copied().chain(system);
    for (fd, rights) in read.map(|fd| (fd, reading)).chain(list).chain(write) {
        let rights: BitFlags<AccessFs> = match is_directory(fd) {
            true => rights,
            false => rights & AccessFs::from_file(LANDLOCK),
        };
        rules = rules.add_rule(PathBeneath::new(fd, rights))?;
    }
    let status = rules.restrict_self()?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => 0,
        (_, LandlockStatus::Available { effective_abi, .. }) => {
            (effective_abi as i32).min(LANDLOCK as i32)
        }
        _ => 0,
    })
}

fn is_directory(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Fails what a server never does, and an attacker would do first.
const REFUSED: &[libc::c_long] = &[
    // Services behind sockets; io_uring opens them without a system call of their own.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Programs, and other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Mounts and namespaces, in one of which a process has all capabilities again.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_open_tree,
    libc::SYS_unshare,
    libc::SYS_setns,
    // Parts of the kernel that few programs use, and where most of its faults are.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_personality,
];

/// The same calls by their other numbers, of the ABI with pointers of 32 bits (`asm/unistd_x32.h`).
#[cfg(target_arch = "x86_64")]
fn other_numbers() -> impl Iterator<Item = i64> {
    const X32: i64 = 0x4000_0000;
    // execve, ptrace, process_vm_readv, process_vm_writev, execveat.
    let own = [520, 521, 539, 540, 545];
    REFUSED
        .iter()
        .copied()
        .chain(own)
        .map(|number| number | X32)
}

#[cfg(not(target_arch = "x86_64"))]
fn other_numbers() -> impl Iterator<Item = i64> {
    std::iter::empty()
}

fn filter_system_calls() -> bool {
    let program = || -> Option<BpfProgram> {
        let numbers = REFUSED.iter().copied().chain(other_numbers());
        // Without conditions.
        let rules: BTreeMap<_, _> = numbers.map(|number| (number, Vec::new())).collect();
        let refuse = SeccompAction::Errno(Errno::PERM.raw_os_error() as u32);
        let arch = std::env::consts::ARCH.try_into().ok()?;
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)
            .ok()?
            .try_into()
            .ok()
    };
    program().is_some_and(|program| seccompiler::apply_filter(&program).is_ok())
}
