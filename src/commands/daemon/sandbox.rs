//! What a process gives up before it reads anything that others wrote.
//!
//! Whoever takes over the decoder of a server then has a process that can read the archive, write
//! the indexes, and answer what is asked of the mount: it opens nothing else, starts no program,
//! connects to nobody, and reaches no other process. Each protection holds by itself, and where the
//! kernel has none of a kind, or lets us use none, the others hold all the same; which ones do is
//! part of the mount's [`Status`](modeloci::mount::Status).
//!
//! Where the model is in a registry, it may connect, too, by TCP and to anybody: where a registry redirects
//! to is not known before. Names are looked up, and credentials read, by its keeper.
//!
//! - `no_new_privs`: no setuid program gives back what was given up.
//! - No capabilities, not even in the bounding set. Only for an image-layout directory whose files
//!   root could not read otherwise, `CAP_DAC_READ_SEARCH` stays.
//! - Landlock (Linux 5.13): files, TCP ports, abstract sockets and signals, as far as the kernel
//!   knows how to refuse each. `/proc` may be read, in which a server looks after itself and after
//!   readers that were killed; what is secret there Landlock refuses by itself.
//! - A [filter of system calls](super::system_calls), which allows what a server does and nothing else:
//!   Landlock refuses neither a socket with a path, behind which a service may do for root whatever it
//!   is asked, nor to change what is not opened, as the mode of a file or a limit of another process.
//! - No core dumps: neither into a file, nor to a program that is named in `core_pattern`, which
//!   heeds no limit.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use modeloci::mount::Protections;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::system_calls;

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
    /// Connections by TCP are made: blobs are in a registry.
    pub(crate) network: bool,
}

/// What holds of a process from now on.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) protections: Protections,
    /// What does not, and why: for the log.
    pub(crate) missing: Vec<String>,
}

/// Gives up what is not among the needs. Must be called before the process has other threads, which
/// would keep it.
pub(crate) fn enter(needs: &Needs<'_>) -> Entered {
    let mut missing = Vec::new();
    // Landlock and the filter may be refused to whoever could still gain privileges.
    let no_new_privs = rustix::thread::set_no_new_privs(true);
    if let Err(error) = no_new_privs {
        missing.push(format!("no new privileges: {error}"));
    }
    let no_core_dump = leave_no_core_dump();
    if !no_core_dump {
        missing.push("no core dump: they cannot all be turned off".into());
    }
    let capabilities = drop_capabilities(needs.read_all);
    if let Err(error) = capabilities {
        missing.push(format!("no capabilities: {error}"));
    }
    let landlock = confine(needs, &mut missing).unwrap_or_else(|error| {
        missing.push(format!("Landlock: {error}"));
        0
    });
    let system_calls = system_calls::filter(needs.network);
    if let Err(error) = &system_calls {
        missing.push(format!("system calls filtered: {error}"));
    }
    Entered {
        protections: Protections {
            no_new_privs: no_new_privs.is_ok(),
            capabilities: capabilities.unwrap_or("kept").to_string(),
            landlock,
            system_calls: system_calls.is_ok(),
            no_core_dump,
        },
        missing,
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

fn drop_capabilities(read_all: bool) -> rustix::io::Result<&'static str> {
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
    rustix::thread::set_capabilities(None, sets)?;
    Ok(match kept.is_empty() {
        true => "none",
        false => "dac_read_search",
    })
}

/// Returns the version that is in force. A rule that cannot be made opens nothing, and so leaves the
/// others in force.
fn confine(needs: &Needs<'_>, missing: &mut Vec<String>) -> Result<i32, RulesetError> {
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let writing = reading
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::RemoveFile;
    // Where a registry redirects to, and at which port that is, nobody knows before.
    let connecting = match needs.network {
        true => AccessNet::ConnectTcp.into(),
        false => BitFlags::EMPTY,
    };
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK) & !connecting)?
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
        if let Err(error) = allow(&mut rules, fd, rights) {
            missing.push(format!("a directory that is needed is closed: {error}"));
        }
    }
    let status = rules.restrict_self()?;
    let version = match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => 0,
        (_, LandlockStatus::Available { effective_abi, .. }) => {
            (effective_abi as i32).min(LANDLOCK as i32)
        }
        _ => 0,
    };
    if version == 0 {
        missing.push("Landlock: the kernel has none, or lets us use none".into());
    }
    Ok(version)
}

/// What is no directory is open already, and used as it is: no rule is needed for it, and there can be
/// none for what is on no file system that is mounted (a memfd).
fn allow(
    rules: &mut RulesetCreated,
    fd: BorrowedFd<'_>,
    rights: BitFlags<AccessFs>,
) -> Result<(), RulesetError> {
    match is_directory(fd) {
        true => rules.add_rule(PathBeneath::new(fd, rights)).map(drop),
        false => Ok(()),
    }
}

fn is_directory(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}
