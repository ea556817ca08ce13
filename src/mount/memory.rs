//! What the system tells about memory.

use std::fs;
use std::path::Path;

/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// Resident memory of this process, in bytes.
pub(super) fn resident() -> Option<u64> {
    bytes_of("/proc/self/status", "VmRSS:")
}

/// Bytes that more could be used of before anything else has to go: of the system, or of the control
/// groups that this process is in. 0 when nothing is known.
pub(super) fn available() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = limit_of(&groups, |file| fs::read_to_string(file).ok());
    let system = bytes_of("/proc/meminfo", "MemAvailable:").unwrap_or(0);
    system.min(limit.unwrap_or(u64::MAX))
}

/// The value of one line of a file in `/proc`, which counts in KiB.
fn bytes_of(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The lowest limit of the groups in `groups`, which is in the format of `/proc/PID/cgroup`, and of
/// those around them; `None` when there is none.
fn limit_of(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut lowest = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (root, file) = match controllers {
            "" => (Path::new(GROUPS).to_path_buf(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (Path::new(GROUPS).join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = root.join(path.trim_start_matches('/'));
        let around = group.ancestors().take_while(|dir| dir.starts_with(&root));
        let limits = around.filter_map(|dir| read(&dir.join(file))?.trim().parse::<u64>().ok());
        lowest = limits.chain(lowest).min();
    }
    lowest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_could_use_more() {
        assert!(resident().is_some_and(|bytes| bytes > 1 << 20));
        assert!(available() > 1 << 20);
    }

    #[test]
    fn the_lowest_limit_around_counts() {
        let files = |list: &'static [(&str, &str)]| {
            move |file: &Path| {
                let found = list.iter().find(|(name, _)| Path::new(name) == file);
                found.map(|(_, content)| format!("{content}\n"))
            }
        };
        let unified = files(&[
            ("/sys/fs/cgroup/a/memory.max", "5000"),
            ("/sys/fs/cgroup/a/b/memory.max", "max"),
            ("/sys/fs/cgroup/a/b/c/memory.max", "7000"),
        ]);
        assert_eq!(limit_of("0::/a/b/c\n", unified), Some(5000));
        assert_eq!(limit_of("0::/\n", unified), None);
        let separate = files(&[
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9000"),
            ("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "8000"),
        ]);
        let groups = "5:cpu,cpuacct:/y\n4:hugetlb,memory:/x\n1:name=systemd:/z\n0::/\nnonsense\n";
        assert_eq!(limit_of(groups, separate), Some(8000));
        assert_eq!(limit_of("", separate), None);
    }
}
