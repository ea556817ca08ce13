//! The options of a mount as `-o` lists and mount(8) spell them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use modeloci::byte_size::parse_size;
use modeloci::model::Subtree;
use modeloci::mount::Labels;
use modeloci::{Error, Result};

use super::daemon::options::Options;
use crate::cli::parse_timeout;

/// The options of ours without a value, and those with one.
const FLAGS: [&str; 12] = [
    "ro",
    "root",
    "nosuid",
    "nodev",
    "exec",
    "noexec",
    "allow_other",
    "nonempty",
    "prefetch",
    "no_index",
    "plain_http",
    "default_permissions",
];
const VALUED: [&str; 13] = [
    "prefix",
    "cacert",
    "registry_timeout",
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

/// Most event loops that may be asked for.
const MAX_THREADS: usize = 256;
/// The longest wait that may be asked for, in seconds: a day.
const MAX_STALL_TIMEOUT: u64 = 86_400;

/// Applies a list of `-o` options as mount(8) spells them: separated by commas, a backslash
/// makes the next character an ordinary one, and so do double quotes around a value. A mount is always `ro`, `nosuid` and `nodev`.
/// What concerns only fstab and service managers is ignored. `sloppy` ignores unknown options
/// too (mount(8), `-s`).
///
/// # Errors
/// [`ErrorKind::Usage`](modeloci::ErrorKind::Usage), naming the option.
pub(crate) fn apply(options: &mut Options, list: &str, sloppy: bool) -> Result<()> {
    for option in split(list)? {
        apply_one(options, &option, sloppy)?;
    }
    Ok(())
}

#[expect(
    clippy::too_many_lines,
    reason = "the list is long: one arm for each option, and one for each way to get one wrong"
)]
fn apply_one(options: &mut Options, option: &str, sloppy: bool) -> Result<()> {
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
            return refuse("a mounted model cannot be remounted; unmount it, and mount it again");
        }
        ("exec", None) => options.mount.noexec = false,
        ("noexec", None) => options.mount.noexec = true,
        ("allow_other", None) => options.mount.allow_other = true,
        ("nonempty", None) => options.mount.nonempty = true,
        ("prefetch", None) => options.prefetch = true,
        ("plain_http", None) => options.mount.registry.plain_http = true,
        ("cacert", Some(value)) => options.mount.registry.cacert = Some(path(option, value)?),
        ("registry_timeout", Some(value)) => {
            let timeout = parse_timeout(value).map_err(|why| bad_value(option, why))?;
            options.mount.registry.timeout = timeout;
        }
        ("no_index", None) => options.mount.index_dir = None,
        ("uid", Some(value)) => options.mount.uid = Some(id(option, value)?),
        ("gid", Some(value)) => options.mount.gid = Some(id(option, value)?),
        ("digest", Some(value)) => {
            options.mount.digest = Some(value.parse().map_err(|e| bad_value(option, e))?);
        }
        ("root", None) => options.mount.subtree = Subtree::All,
        ("prefix", Some(value)) => options.mount.subtree = Subtree::below(value),
        ("ref", Some(value)) => options.mount.reference = Some(value.to_string()),
        ("cache_size", Some(value)) => {
            options.mount.cache_bytes = size(option, value)?;
            options.cache_stated = true;
        }
        (name, Some(label)) if Labels::is_option(name) => options.mount.labels.set(name, label)?,
        ("index_dir", Some(value)) => options.mount.index_dir = Some(path(option, value)?),
        ("log_file", Some(value)) => options.log_file = Some(path(option, value)?),
        ("max_readahead", Some(value)) => match u32::try_from(size(option, value)?) {
            Ok(n @ 4096..=0x4000_0000) => options.mount.max_readahead = n,
            _ => return refuse("is not from 4KiB to 1GiB"),
        },
        ("stall_timeout", Some(value)) => match value.parse() {
            Ok(n @ 1..=MAX_STALL_TIMEOUT) => options.mount.stall_timeout = Duration::from_secs(n),
            _ => return refuse("is not a number of seconds from 1 to 86400"),
        },
        ("threads", Some(value)) => match value.parse() {
            Ok(n @ 1..=MAX_THREADS) => options.mount.threads = n,
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
        _ if VALUED.contains(&name) || Labels::is_option(name) => {
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

/// The options of a list. A value that begins with a double quote ends with the next one, behind which
/// the option ends.
fn split(list: &str) -> Result<Vec<String>> {
    let mut options = Vec::new();
    let mut option = String::new();
    let mut chars = list.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ',' => options.push(std::mem::take(&mut option)),
            '\\' => option.push(chars.next().unwrap_or('\\')),
            '"' if option.ends_with('=') && option.matches('=').count() == 1 => {
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some(c) => option.push(c),
                        None => return Err(bad_value(&option, "has no closing quote")),
                    }
                }
                if chars.peek().is_some_and(|next| *next != ',') {
                    return Err(bad_value(&option, "goes on behind its closing quote"));
                }
            }
            c => option.push(c),
        }
    }
    options.push(option);
    Ok(options)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use modeloci::ErrorKind;

    use super::*;

    fn options(list: &str) -> Result<Options> {
        let mut options = Options::new("a.tar", "/mnt");
        apply(&mut options, list, false)?;
        Ok(options)
    }

    #[test]
    fn known_options_are_applied() {
        let o = options(
            "ro,nosuid,noexec,allow_other,uid=5,gid=6,cache_size=64MiB,threads=2,ref=v1,\
             max_readahead=1M,nonempty,prefetch,log_file=/l,index_dir=/a\\,b\\\\c",
        )
        .unwrap();
        assert_eq!(o.log_file, Some("/l".into()));
        assert_eq!(o.mount.reference.as_deref(), Some("v1"));
        assert!(o.prefetch && o.cache_stated);
        let o = o.mount;
        assert!(o.noexec && o.allow_other && o.nonempty);
        assert_eq!((o.uid, o.gid), (Some(5), Some(6)));
        assert_eq!((o.cache_bytes, o.threads), (64 << 20, 2));
        assert_eq!(o.max_readahead, 1 << 20);
        assert_eq!(o.index_dir, Some("/a,b\\c".into()));
        assert_eq!(
            options("index_dir=/x,no_index").unwrap().mount.index_dir,
            None
        );
    }

    #[test]
    fn m12_labels_of_selinux_are_taken_as_mount_8_quotes_them() {
        let label = "system_u:object_r:tmp_t:s0:c127,c456";
        let list = format!(
            "context=\"{label}\",noexec,rootcontext=u:r:t:s0,index_dir=\"/a,b\\c\",log_file=/l\"1"
        );
        let o = options(&list).unwrap();
        let labels: Vec<_> = o.mount.labels.iter().collect();
        assert_eq!(labels, [("context", label), ("rootcontext", "u:r:t:s0")]);
        assert!(o.mount.noexec);
        assert_eq!(o.mount.index_dir, Some("/a,b\\c".into()));
        assert_eq!(o.log_file, Some("/l\"1".into()), "only around a value");
        for (bad, why) in [
            ("context=\"a:b,noexec", "has no closing quote"),
            ("context=\"a\"b", "goes on behind its closing quote"),
            ("context=\"\"", "is empty"),
            ("context=a\"b", "has a quote"),
            ("fscontext", "needs a value, as in fscontext=..."),
        ] {
            let error = options(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{bad}");
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn sizes_are_taken_however_their_unit_is_written() {
        for size in ["64M", "64Mi", "64MiB", "64m"] {
            let o = options(&format!("cache_size={size},max_readahead={size}"));
            let o = o.unwrap().mount;
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
        let mut sloppy = Options::new("a.tar", "/mnt");
        apply(&mut sloppy, "nosuchoption", true).unwrap();
        assert!(apply(&mut sloppy, "rw", true).is_err());
    }
}
