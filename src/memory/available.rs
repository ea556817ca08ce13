//! Memory that can be had: of the system, and of the control groups that this process is in.

use std::fs;
use std::path::Path;

/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// Bytes that could be taken before anything but file pages has to go: of the system, or of the
/// control groups that this process is in. 0 when nothing is known.
pub(crate) fn bytes() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let free = free_in(&groups, |file| fs::read_to_string(file).ok());
    let system = bytes_of("/proc/meminfo", "MemAvailable:").unwrap_or(0);
    system.min(free.unwrap_or(u64::MAX))
}

/// The smallest limit of the control groups that this process is in, in bytes; `None` without one.
pub(crate) fn limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    least(&groups, |names, dir| {
        number(&fs::read_to_string(dir.join(names.limit)).ok()?)
    })
}

/// Pages of this process, as `/proc/self/statm` counts them: all, resident, shared, text, library, data and
/// stack.
pub(crate) fn own_pages() -> Vec<u64> {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().map_while(number).collect()
}

/// The value of one line of a file in `/proc`, which counts in KiB.
pub(crate) fn bytes_of(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What one version of control groups calls things.
struct Names {
    /// Below [`GROUPS`].
    root: &'static str,
    limit: &'static str,
    used: &'static str,
    /// Lines of `memory.stat` that count file pages, which can be dropped.
    files: [&'static str; 2],
}

const UNIFIED: Names = Names {
    root: "",
    limit: "memory.max",
    used: "memory.current",
    files: ["inactive_file ", "active_file "],
};
const SEPARATE: Names = Names {
    root: "memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    files: ["total_inactive_file ", "total_active_file "],
};

/// The least that is free in the groups in `groups`, which is in the format of `/proc/PID/cgroup`,
/// and in those around them; `None` when none has a limit.
fn free_in(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    least(groups, |names, dir| {
        free_in_one(names, |file| read(&dir.join(file)))
    })
}

/// The least of what `of` tells of the directories of these groups, and of those around them.
fn least(groups: &str, of: impl Fn(&Names, &Path) -> Option<u64>) -> Option<u64> {
    let mut least = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let names = match controllers {
            "" => UNIFIED,
            _ if controllers.split(',').any(|name| name == "memory") => SEPARATE,
            _ => continue,
        };
        let root = Path::new(GROUPS).join(names.root);
        let group = root.join(path.trim_start_matches('/'));
        let around = group.ancestors().take_while(|dir| dir.starts_with(&root));
        least = around.filter_map(|dir| of(&names, dir)).chain(least).min();
    }
    least
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// What is free in one group; `None` when it has no limit.
fn free_in_one(names: &Names, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let limit = number(&read(names.limit)?)?;
    let used = read(names.used).and_then(|text| number(&text)).unwrap_or(0);
    let stat = read("memory.stat").unwrap_or_default();
    let counts = stat.lines().filter_map(|line| {
        let count = names
            .files
            .iter()
            .find_map(|name| line.strip_prefix(name))?;
        count.trim().parse::<u64>().ok()
    });
    let files = counts.fold(0u64, u64::saturating_add);
    Some(limit.saturating_sub(used.saturating_sub(files)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_could_use_more_memory() {
        assert!(bytes() > 1 << 20);
    }

    #[test]
    fn the_least_that_is_free_around_counts() {
        let files = |list: &'static [(&str, &str)]| {
            move |file: &Path| {
                let found = list.iter().find(|(name, _)| Path::new(name) == file);
                found.map(|(_, content)| format!("{content}\n"))
            }
        };
        let unified = files(&[
            ("/sys/fs/cgroup/a/memory.max", "5000"),
            ("/sys/fs/cgroup/a/memory.current", "4000"),
            (
                "/sys/fs/cgroup/a/memory.stat",
                "anon 1000\nfile 3500\ninactive_file 1500\nactive_file 1000\n",
            ),
            ("/sys/fs/cgroup/a/b/memory.max", "max"),
            ("/sys/fs/cgroup/a/b/memory.current", "4000"),
            ("/sys/fs/cgroup/a/b/c/memory.max", "7000"),
        ]);
        assert_eq!(free_in("0::/a/b/c\n", unified), Some(5000 - 4000 + 2500));
        assert_eq!(free_in("0::/\n", unified), None);
        let separate = files(&[
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9000"),
            ("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "8000"),
            ("/sys/fs/cgroup/memory/x/memory.usage_in_bytes", "3000"),
            (
                "/sys/fs/cgroup/memory/x/memory.stat",
                "inactive_file 7\ntotal_inactive_file 600\ntotal_active_file 400",
            ),
            ("/sys/fs/cgroup/memory/full/memory.limit_in_bytes", "10"),
            ("/sys/fs/cgroup/memory/full/memory.usage_in_bytes", "20"),
        ]);
        let groups = "5:cpu,cpuacct:/y\n4:hugetlb,memory:/x\n1:name=systemd:/z\n0::/\nnonsense\n";
        assert_eq!(free_in(groups, separate), Some(8000 - 3000 + 1000));
        assert_eq!(free_in("4:memory:/full", separate), Some(0));
        assert_eq!(free_in("", separate), None);
    }
}
