//! The process that a mount leaves behind: a fresh execution of this program, not a fork, so that no
//! thread or lock of the starter can be half copied. The starter waits on a pipe for "ready" or the
//! error, and returns it as its own.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use modeloci::model::Subtree;
use modeloci::mount::parts;
use modeloci::source::registry::Reference;
use modeloci::{Error, Result};

use super::options::{Inherited, Options};
use super::{process, ready};

/// Starts a process that serves in its foreground, and waits until it reports.
pub(crate) fn start(options: &Options) -> Result<()> {
    let mut options = options.clone();
    if Reference::explicit(&options.mount.archive).is_none() {
        options.mount.archive = absolute(&options.mount.archive)?;
    }
    let inherited = options.inherited()?;
    let place = place(&inherited, &mut options)?;
    let mount = &mut options.mount;
    let paths = [
        &mut options.log_file,
        &mut mount.index_dir,
        &mut mount.registry.cacert,
    ];
    for path in paths.into_iter().flatten() {
        *path = absolute(path)?;
    }
    let pipe_error = |e: rustix::io::Errno| Error::io("create", "a pipe")(e.into());
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(pipe_error)?;
    // Both sides mean the same directory by the mount point, whatever its path leads to by now.
    let report_fd = writer.as_raw_fd();
    let place_fd = place.as_ref().map(|place| place.as_fd().as_raw_fd());
    let mut kept = vec![report_fd];
    kept.extend(place_fd);
    kept.extend(inherited.connection.as_ref().map(AsRawFd::as_raw_fd));
    kept.extend(inherited.named.iter().map(AsRawFd::as_raw_fd));
    let mut command = Command::new("/proc/self/exe");
    command
        .args(to_args(&options, report_fd, place_fd))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    std::os::unix::process::CommandExt::arg0(&mut command, "modeloci");
    let mut child = process::on_its_own(&mut command, kept)
        .spawn()
        .map_err(Error::io("start", "the background process"))?;
    drop((writer, inherited));
    if let Some(report) = ready::receive(std::fs::File::from(reader)) {
        return report;
    }
    let end = child.wait().map(|status| status.to_string());
    // m10: it may have died at any moment.
    if let Some(place) = &place {
        parts::clear_after_death(place)?;
    }
    Err(Error::environment(
        "the background process",
        format!(
            "ended before the mount answered: {}",
            end.unwrap_or_else(|error| error.to_string())
        ),
    ))
}

/// Where the mount will be, by whose name it goes from here on. What is mounted already is another's: there
/// is no place to look for what a dead process leaves.
fn place(inherited: &Inherited, options: &mut Options) -> Result<Option<parts::Place>> {
    if let Some(connection) = &inherited.connection {
        parts::Given::check(connection.as_fd(), &options.mount)?;
        return Ok(None);
    }
    let mountpoint = &mut options.mount.mountpoint;
    let place = match &inherited.directory {
        Some(directory) => parts::Place::of(directory.as_fd(), mountpoint)?,
        None => parts::Place::find(mountpoint)?,
    };
    *mountpoint = place.path().to_path_buf();
    Ok(Some(place))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::io("use", path))
}

/// The arguments of a process that serves this mount in its foreground, reports to `ready_fd`,
/// and mounts on the directory `mountpoint_fd`, if it has a place. The paths must be absolute: the
/// process runs in `/`.
fn to_args(options: &Options, ready_fd: i32, mountpoint_fd: Option<i32>) -> Vec<OsString> {
    let mount = &options.mount;
    let mut args: Vec<OsString> = vec!["mount".into(), "--foreground".into()];
    let mut option = |name: &str, value: &OsStr| {
        args.push(name.into());
        args.push(value.into());
    };
    option("--ready-fd", OsStr::new(&ready_fd.to_string()));
    if let Some(fd) = mountpoint_fd {
        option("--mountpoint-fd", OsStr::new(&fd.to_string()));
    }
    option("--cache-size", OsStr::new(&mount.cache_bytes.to_string()));
    if let Some(digest) = &mount.digest {
        option("--digest", OsStr::new(&digest.to_string()));
    }
    if let Some(file) = &options.log_file {
        option("--log-file", file.as_os_str());
    }
    if let Some(dir) = &mount.index_dir {
        option("--index-dir", dir.as_os_str());
    }
    if let Some(file) = &mount.registry.cacert {
        option("--cacert", file.as_os_str());
    }
    let timeout = mount.registry.timeout.as_secs();
    option("--registry-timeout", OsStr::new(&timeout.to_string()));
    if let Some(uid) = mount.uid {
        option("--uid", OsStr::new(&uid.to_string()));
    }
    if let Some(gid) = mount.gid {
        option("--gid", OsStr::new(&gid.to_string()));
    }
    option("-o", OsStr::new(&list(options)));
    if let Some(name) = &mount.reference {
        // In one word, as it may begin like an option.
        args.push(format!("--ref={name}").into());
    }
    match &mount.subtree {
        Subtree::Usual => {}
        Subtree::All => args.push("--root".into()),
        Subtree::Below(path) => args.push(format!("--prefix={path}").into()),
    }
    if mount.registry.plain_http {
        args.push("--plain-http".into());
    }
    if options.log_file.is_none() {
        args.push("--system-log".into());
    }
    if mount.index_dir.is_none() {
        args.push("--no-index".into());
    }
    if options.no_sandbox {
        args.push("--no-sandbox".into());
    }
    args.extend(options.extra_args.iter().cloned());
    args.push("--".into());
    args.push(mount.archive.clone().into());
    args.push(mount.mountpoint.clone().into());
    args
}

/// What has no option of its own.
fn list(options: &Options) -> String {
    let mount = &options.mount;
    let mut list = format!(
        "ro,threads={},max_readahead={},stall_timeout={}",
        mount.threads,
        mount.max_readahead,
        mount.stall_timeout.as_secs()
    );
    for (on, name) in [
        (mount.noexec, "noexec"),
        (mount.nonempty, "nonempty"),
        (mount.allow_other, "allow_other"),
        (options.prefetch, "prefetch"),
    ] {
        if on {
            list.push(',');
            list.push_str(name);
        }
    }
    list.push_str(&mount.labels.to_list());
    list
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::commands::mount_list;

    #[test]
    fn m12_the_background_process_is_told_the_labels() {
        let mut options = Options::new("a.tar", "/mnt");
        let given = "noexec,context=\"u:r:t:s0:c1,c2\",defcontext=u:r:d:s0";
        mount_list::apply(&mut options, given, false).unwrap();
        let mut told = Options::new("a.tar", "/mnt");
        mount_list::apply(&mut told, &list(&options), false).unwrap();
        assert_eq!(told.mount, options.mount);
        assert_eq!(told.mount.labels.iter().count(), 2);
    }
}
