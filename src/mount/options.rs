//! How to mount: one value from the command line, `-o` lists and mount(8).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::byte_size::parse_size;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits;

/// How to mount. Everything has a default but the two paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// The archive, or an image-layout directory.
    pub archive: PathBuf,
    /// Where to mount: an empty directory.
    pub mountpoint: PathBuf,
    /// The digest that the manifest must have.
    pub digest: Option<Digest>,
    /// The name that the archive's index must give the manifest.
    pub reference: Option<String>,
    /// Bytes of decoded chunks to keep.
    pub cache_bytes: u64,
    /// The size of the cache was asked for: it is not made to fit.
    pub cache_stated: bool,
    /// Where seek tables of foreign layers are kept; `None` to keep none.
    pub index_dir: Option<PathBuf>,
    /// Where messages are appended; `None` for stderr, or for the system log when the mount is in
    /// the background.
    pub log_file: Option<PathBuf>,
    /// Without a log file, messages go to the system log and not to stderr. The background process
    /// is started with this: nobody reads its stderr.
    pub system_log: bool,
    /// Serve in this process, until the mount ends.
    pub foreground: bool,
    /// Let other users read the mount.
    pub allow_other: bool,
    /// Owner of all files; `None` for the user who mounts.
    pub uid: Option<u32>,
    /// Group of all files; `None` for that of the user who mounts.
    pub gid: Option<u32>,
    /// Forbid executing files.
    pub noexec: bool,
    /// Mount over a directory that is not empty.
    pub nonempty: bool,
    /// Fill the kernel's page cache in the background while nobody reads.
    pub prefetch: bool,
    /// Event loops, which answer requests side by side.
    pub threads: usize,
    /// What the kernel may read ahead of a reader, in bytes.
    pub max_readahead: u32,
    /// How long nothing that a read waits for may get on before the read is an error.
    pub stall_timeout: Duration,
    /// An inherited descriptor that gets `READY=1` and a newline when the mount answers.
    pub ready_fd: Option<i32>,
    /// An inherited descriptor of the directory that holds the mount point, by which a background
    /// process mounts where its starter has looked: of the path only the last name counts then.
    pub mountpoint_fd: Option<i32>,
    /// The processes that serve this mount in the background keep all rights that they have: for
    /// debugging. A mount in the foreground of a caller never takes any from it.
    pub no_sandbox: bool,
    /// Command-line options that the background process is started with besides these, such as
    /// `-v`.
    pub extra_args: Vec<OsString>,
}

/// The options of ours without a value, and those with one.
const FLAGS: [&str; 10] = [
    "ro",
    "nosuid",
    "nodev",
    "exec",
    "noexec",
    "allow_other",
    "nonempty",
    "prefetch",
    "no_index",
    "default_permissions",
];
const VALUED: [&str; 10] = [
    "uid",
    "gid",
    "digest",
    "cache_size",
    "index_dir",
    "log_file",
    "max_readahead",
    "ref",
    "stall_timeout",
    "threads",
];

/// Largest request that the kernel makes: one chunk of the default size, so that an answer is a slice
/// of a chunk and need not be put together from two.
pub(super) const MAX_REQUEST_BYTES: u32 = limits::DEFAULT_CHUNK_BYTES;
/// Most event loops that may be asked for.
const MAX_THREADS: usize = 256;
/// Event loops when none are asked for: requests wait for decodes, so more than cores.
const DEFAULT_THREADS: usize = 8;
/// Readahead when none is asked for: deep enough that requests in flight hide a decode.
const DEFAULT_READAHEAD: u32 = 16 << 20;
/// How long what a read waits for may stand still when nothing else is asked for.
const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest that may be asked for, in seconds: a day.
const MAX_STALL_TIMEOUT: u64 = 86_400;

impl MountOptions {
    /// Mounts `archive` at `mountpoint` with every default.
    pub fn new(archive: impl Into<PathBuf>, mountpoint: impl Into<PathBuf>) -> MountOptions {
        MountOptions {
            archive: archive.into(),
            mountpoint: mountpoint.into(),
            digest: None,
            reference: None,
            cache_bytes: limits::DEFAULT_CACHE_BYTES,
            cache_stated: false,
            index_dir: None,
            log_file: None,
            system_log: false,
            foreground: false,
            allow_other: false,
            uid: None,
            gid: None,
            noexec: false,
            nonempty: false,
            prefetch: false,
            threads: DEFAULT_THREADS,
            max_readahead: DEFAULT_READAHEAD,
            stall_timeout: DEFAULT_STALL_TIMEOUT,
            ready_fd: None,
            mountpoint_fd: None,
            no_sandbox: false,
            extra_args: Vec::new(),
        }
    }

    /// Applies a list of `-o` options as mount(8) spells them: separated by commas, a backslash
    /// makes the next character an ordinary one. A mount is always `ro`, `nosuid` and `nodev`.
    /// What concerns only fstab and service managers is ignored. `sloppy` ignores unknown options
    /// too (mount(8), `-s`).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage), naming the option.
    pub fn apply(&mut self, list: &str, sloppy: bool) -> Result<()> {
        for option in split(list) {
            self.apply_one(&option, sloppy)?;
        }
        Ok(())
    }

    fn apply_one(&mut self, option: &str, sloppy: bool) -> Result<()> {
        let refuse = |why: &str| Err(Error::usage(format!("mount option \"{option}\": {why}")));
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        match (name, value) {
            ("", None) | ("ro" | "nosuid" | "nodev" | "default_permissions", None) => {}
            ("rw", None) => return refuse("a model is mounted read-only; use ro"),
            ("suid" | "dev", None) => return refuse("a model is mounted nosuid and nodev"),
            ("allow_root", None) => {
                // The kernel knows only allow_other; what it has cached, it would show to all.
                return refuse("cannot be guaranteed by the kernel; use allow_other");
            }
            // Also what a service manager's "reload" of a mount unit asks for.
            ("remount", None) => {
                return refuse(
                    "a mounted model cannot be remounted; unmount it, and mount it again",
                );
            }
            ("exec", None) => self.noexec = false,
            ("noexec", None) => self.noexec = true,
            ("allow_other", None) => self.allow_other = true,
            ("nonempty", None) => self.nonempty = true,
            ("prefetch", None) => self.prefetch = true,
            ("no_index", None) => self.index_dir = None,
            ("uid", Some(value)) => self.uid = Some(id(option, value)?),
            ("gid", Some(value)) => self.gid = Some(id(option, value)?),
            ("digest", Some(value)) => {
                self.digest = Some(value.parse().map_err(|e| bad_value(option, e))?);
            }
            ("ref", Some(value)) => self.reference = Some(value.to_string()),
            ("cache_size", Some(value)) => {
                self.cache_bytes = size(option, value)?;
                self.cache_stated = true;
            }
            ("index_dir", Some(value)) => self.index_dir = Some(path(option, value)?),
            ("log_file", Some(value)) => self.log_file = Some(path(option, value)?),
            ("max_readahead", Some(value)) => match u32::try_from(size(option, value)?) {
                Ok(n @ 4096..=0x4000_0000) => self.max_readahead = n,
                _ => return refuse("is not from 4KiB to 1GiB"),
            },
            ("stall_timeout", Some(value)) => match value.parse() {
                Ok(n @ 1..=MAX_STALL_TIMEOUT) => self.stall_timeout = Duration::from_secs(n),
                _ => return refuse("is not a number of seconds from 1 to 86400"),
            },
            ("threads", Some(value)) => match value.parse() {
                Ok(n @ 1..=MAX_THREADS) => self.threads = n,
                _ => return refuse("is not a number from 1 to 256"),
            },
            (
                "defaults" | "auto" | "noauto" | "user" | "users" | "nouser" | "owner" | "group"
                | "nofail" | "_netdev" | "atime" | "noatime" | "relatime" | "norelatime"
                | "strictatime" | "nostrictatime" | "diratime" | "nodiratime" | "lazytime"
                | "nolazytime" | "sync" | "async" | "dirsync" | "nosymfollow" | "iversion"
                | "noiversion" | "mand" | "nomand" | "silent" | "loud" | "_rnetdev" | "nogroup"
                | "noowner" | "nousers",
                None,
            )
            | ("comment" | "user", Some(_)) => {}
            _ if name.starts_with("x-") || name.starts_with("X-") => {}
            _ if sloppy => {}
            _ if FLAGS.contains(&name) => return refuse("takes no value"),
            _ if VALUED.contains(&name) => {
                return refuse(&format!("needs a value, as in {name}=..."));
            }
            _ => {
                // Options of the command line have dashes.
                let name = name.replace('-', "_");
                if FLAGS.contains(&&*name) || VALUED.contains(&&*name) {
                    return refuse(&format!("is unknown; did you mean {name}?"));
                }
                return refuse("is unknown; `modeloci mount --help` lists those of a model");
            }
        }
        Ok(())
    }

    /// The arguments of a process that serves this mount in its foreground, reports to `ready_fd`,
    /// and finds the mount point in the directory `mountpoint_fd`. The paths must be absolute: the
    /// process runs in `/`.
    pub(super) fn to_args(&self, ready_fd: i32, mountpoint_fd: i32) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["mount".into(), "--foreground".into()];
        let mut option = |name: &str, value: &OsStr| {
            args.push(name.into());
            args.push(value.into());
        };
        option("--ready-fd", OsStr::new(&ready_fd.to_string()));
        option("--mountpoint-fd", OsStr::new(&mountpoint_fd.to_string()));
        option("--cache-size", OsStr::new(&self.cache_bytes.to_string()));
        if let Some(digest) = &self.digest {
            option("--digest", OsStr::new(&digest.to_string()));
        }
        if let Some(file) = &self.log_file {
            option("--log-file", file.as_os_str());
        }
        if let Some(dir) = &self.index_dir {
            option("--index-dir", dir.as_os_str());
        }
        if let Some(uid) = self.uid {
            option("--uid", OsStr::new(&uid.to_string()));
        }
        if let Some(gid) = self.gid {
            option("--gid", OsStr::new(&gid.to_string()));
        }
        let mut list = format!(
            "ro,threads={},max_readahead={},stall_timeout={}",
            self.threads,
            self.max_readahead,
            self.stall_timeout.as_secs()
        );
        for (on, name) in [
            (self.noexec, "noexec"),
            (self.nonempty, "nonempty"),
            (self.allow_other, "allow_other"),
            (self.prefetch, "prefetch"),
        ] {
            if on {
                list.push(',');
                list.push_str(name);
            }
        }
        option("-o", OsStr::new(&list));
        if let Some(name) = &self.reference {
            // In one word, as it may begin like an option.
            args.push(format!("--ref={name}").into());
        }
        if self.log_file.is_none() {
            args.push("--system-log".into());
        }
        if self.index_dir.is_none() {
            args.push("--no-index".into());
        }
        if self.no_sandbox {
            args.push("--no-sandbox".into());
        }
        args.extend(self.extra_args.iter().cloned());
        args.push("--".into());
        args.push(self.archive.clone().into());
        args.push(self.mountpoint.clone().into());
        args
    }
}

fn bad_value(option: &str, why: impl std::fmt::Display) -> Error {
    Error::usage(format!("mount option \"{option}\": {why}"))
}

fn size(option: &str, value: &str) -> Result<u64> {
    parse_size(value).map_err(|why| bad_value(option, why))
}

fn id(option: &str, value: &str) -> Result<u32> {
    // The largest number means "no change" to chown(2), and is no user.
    match value.parse() {
        Ok(n) if n != u32::MAX => Ok(n),
        _ => Err(bad_value(option, "is not a numeric id")),
    }
}

fn path(option: &str, value: &str) -> Result<PathBuf> {
    if value.is_empty() {
        return Err(bad_value(option, "is empty"));
    }
    Ok(Path::new(value).to_path_buf())
}

fn split(list: &str) -> Vec<String> {
    let mut options = vec![String::new()];
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        let plain = match c {
            ',' => {
                options.push(String::new());
                continue;
            }
            '\\' => chars.next().unwrap_or('\\'),
            c => c,
        };
        if let Some(last) = options.last_mut() {
            last.push(plain);
        }
    }
    options
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::error::ErrorKind;

    fn options(list: &str) -> Result<MountOptions> {
        let mut options = MountOptions::new("a.tar", "/mnt");
        options.apply(list, false)?;
        Ok(options)
    }

    #[test]
    fn known_options_are_applied() {
        let o = options(
            "ro,nosuid,noexec,allow_other,uid=5,gid=6,cache_size=64MiB,threads=2,ref=v1,\
             max_readahead=1M,nonempty,prefetch,log_file=/l,index_dir=/a\\,b\\\\c",
        )
        .unwrap();
        assert_eq!(o.reference.as_deref(), Some("v1"));
        assert!(o.noexec && o.allow_other && o.nonempty && o.prefetch);
        assert_eq!((o.uid, o.gid), (Some(5), Some(6)));
        assert_eq!((o.cache_bytes, o.threads), (64 << 20, 2));
        assert_eq!(o.max_readahead, 1 << 20);
        assert_eq!(o.index_dir, Some("/a,b\\c".into()));
        assert_eq!(options("index_dir=/x,no_index").unwrap().index_dir, None);
    }

    #[test]
    fn sizes_are_taken_however_their_unit_is_written() {
        for size in ["64M", "64Mi", "64MiB", "64m"] {
            let o = options(&format!("cache_size={size},max_readahead={size}")).unwrap();
            assert_eq!(
                (o.cache_bytes, o.max_readahead),
                (64 << 20, 64 << 20),
                "{size}"
            );
        }
    }

    #[test]
    fn what_concerns_others_is_ignored() {
        let list = "defaults,noauto,user,nofail,_netdev,x-systemd.automount,X-a=b,,comment=c,\
                    user=me,sync,async,dirsync,nosymfollow,iversion,mand,lazytime,strictatime,silent";
        assert_eq!(options(list).unwrap(), options("").unwrap());
    }

    #[test]
    fn the_rest_is_refused() {
        for bad in [
            "rw",
            "suid",
            "dev",
            "allow_root",
            "remount",
            "nosuchoption",
            "uid=root",
            "uid=4294967295",
            "gid=",
            "cache_size=big",
            "digest=sha256:12",
            "threads=0",
            "threads=257",
            "max_readahead=1",
            "ro=1",
            "index_dir=",
        ] {
            let error = options(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{bad}");
            assert!(error.to_string().contains(bad), "{error}");
        }
        for (wrong, why) in [
            ("cache_size", "needs a value"),
            ("ro=1", "takes no value"),
            ("cache-size=1M", "did you mean cache_size?"),
            ("allow-other", "did you mean allow_other?"),
            ("atime=1", "is unknown"),
        ] {
            let error = options(wrong).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let mut sloppy = MountOptions::new("a.tar", "/mnt");
        sloppy.apply("nosuchoption", true).unwrap();
        assert!(sloppy.apply("rw", true).is_err());
    }
}
