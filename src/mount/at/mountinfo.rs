//! `/proc/self/mountinfo`: what is mounted where (proc_pid_mountinfo(5)).
//!
//! The kernel writes space, tab, newline, backslash and `#` in paths as three octal digits after a
//! backslash; here they are plain bytes again. Lines of a form that this kernel does not write are
//! left out.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// The type of our mounts in `/proc/self/mountinfo`, and what it says after `fuse.`.
pub(in crate::mount) const FS_TYPE: &str = "fuse.modeloci";
pub(in crate::mount) const SUBTYPE: &str = "modeloci";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mount) struct Mount {
    /// Its number, unique while it exists.
    pub(in crate::mount) id: u32,
    /// The mount that it stands on.
    pub(in crate::mount) parent: u32,
    /// `major:minor` of its device: names the FUSE connection.
    pub(in crate::mount) device: String,
    /// Where it is mounted.
    pub(in crate::mount) mount_point: PathBuf,
    /// Type and subtype, such as `fuse.modeloci`.
    pub(in crate::mount) fs_type: String,
    /// What is mounted.
    pub(in crate::mount) source: OsString,
}

impl Mount {
    /// True for any program's FUSE mount.
    pub(in crate::mount) fn is_fuse(&self) -> bool {
        self.fs_type == "fuse" || self.fs_type.starts_with("fuse.")
    }
}

/// All mounts that this process can reach.
pub(in crate::mount) fn read() -> Result<Vec<Mount>> {
    const PATH: &str = "/proc/self/mountinfo";
    Ok(parse(&fs::read(PATH).map_err(Error::io("read", PATH))?))
}

/// The mount of that number.
pub(in crate::mount) fn by_id(mounts: &[Mount], id: u32) -> Option<&Mount> {
    mounts.iter().find(|mount| mount.id == id)
}

/// The mount that a look-up of `mount_point` reaches: of several on one directory, the last.
#[cfg(test)]
pub(in crate::mount) fn topmost<'a>(
    mounts: &'a [Mount],
    mount_point: &std::path::Path,
) -> Option<&'a Mount> {
    let here = || mounts.iter().filter(|m| m.mount_point == mount_point);
    here().find(|m| !here().any(|other| other.parent == m.id && other.id != m.id))
}

fn parse(bytes: &[u8]) -> Vec<Mount> {
    bytes.split(|&b| b == b'\n').filter_map(line).collect()
}

/// `36 35 98:0 /root /mount/point options optional… - type source super-options`
fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let id = text()?.parse().ok()?;
    let parent = text()?.parse().ok()?;
    let device = text()?.to_string();
    let _root = fields.next()?;
    let mount_point = unescape(fields.next()?);
    let _options = fields.next()?;
    fields.by_ref().find(|field| *field == b"-")?;
    let fs_type = String::from_utf8(unescape(fields.next()?)).ok()?;
    let source = unescape(fields.next()?);
    Some(Mount {
        id,
        parent,
        device,
        mount_point: PathBuf::from(OsString::from_vec(mount_point)),
        fs_type,
        source: OsString::from_vec(source),
    })
}

/// Undoes `\040`; a backslash that begins no octal escape stands for itself.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        match (byte, tail) {
            (
                b'\\',
                [
                    a @ b'0'..=b'3',
                    b @ b'0'..=b'7',
                    c @ b'0'..=b'7',
                    after @ ..,
                ],
            ) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    const SAMPLE: &[u8] = b"\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
41 22 0:38 / /mnt/a\\040b\\012c\\134d ro,nosuid,nodev shared:7 master:2 - fuse.modeloci /x/m\\0431,2.tar ro,user_id=0\n\
42 22 0:39 / /mnt/m rw - tmpfs tmpfs rw\n\
43 42 0:40 / /mnt/m ro - fuse.modeloci second ro\n\
garbage\n\
44 22 0:41 / /mnt/none rw -\n";

    #[test]
    fn m1_paths_are_unescaped() {
        let mounts = parse(SAMPLE);
        assert_eq!(mounts.len(), 4);
        assert_eq!(mounts[1].mount_point, Path::new("/mnt/a b\nc\\d"));
        assert_eq!(mounts[1].source, "/x/m#1,2.tar");
        assert_eq!(mounts[1].device, "0:38");
        assert_eq!(mounts[1].fs_type, "fuse.modeloci");
    }

    #[test]
    fn of_several_mounts_on_a_directory_the_last_counts() {
        let mut mounts = parse(SAMPLE);
        assert_eq!(topmost(&mounts, Path::new("/mnt/m")).unwrap().id, 43);
        mounts.reverse();
        assert_eq!(topmost(&mounts, Path::new("/mnt/m")).unwrap().id, 43);
        assert_eq!(topmost(&mounts, Path::new("/mnt")), None);
    }

    #[test]
    fn this_system_has_a_root() {
        assert!(topmost(&read().unwrap(), Path::new("/")).is_some());
    }
}
