//! Whether who asked is still there to get an answer.
//!
//! The kernel lets a killed process go as soon as its request was answered, and not before, once a
//! server has taken it. fuser 0.18.0 answers `FUSE_INTERRUPT`, which would tell of the kill, with
//! ENOSYS; so requests that wait for long are looked after from here.

use std::fs;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// Among the pending signals of a status file: SIGKILL, number 9.
const KILL: u64 = 1 << (libc::SIGKILL - 1);

/// True when the thread that asked is gone, or was killed and only waits for its answer. False when
/// nothing is known of it: `0` stands for one of another PID namespace.
#[expect(
    clippy::disallowed_methods,
    reason = "/proc, which names nothing that others could change"
)]
pub(super) fn is_gone(thread: u32) -> bool {
    let Some(thread) = i32::try_from(thread).ok().and_then(Pid::from_raw) else {
        return false;
    };
    // Also where /proc is hidden, or does not show threads of others.
    if test_kill_process(thread) == Err(Errno::SRCH) {
        return true;
    }
    let path = format!("/proc/{}/status", thread.as_raw_nonzero());
    fs::read_to_string(path).is_ok_and(|status| is_over(&status))
}

/// True for the status file of a thread that has ended, or is to end at once.
fn is_over(status: &str) -> bool {
    status.lines().any(|line| {
        let Some((name, value)) = line.split_once(':') else {
            return false;
        };
        let value = value.trim();
        match name {
            "State" => value.starts_with(['Z', 'X']),
            // Its own, and those of its process.
            "SigPnd" | "ShdPnd" => {
                u64::from_str_radix(value, 16).is_ok_and(|pending| pending & KILL != 0)
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn r11_who_has_ended_is_gone_and_who_lives_is_not() {
        assert!(!is_gone(0), "of another namespace");
        assert!(!is_gone(u32::MAX));
        assert!(!is_gone(std::process::id()));
        // A thread that is not the first of its process.
        let thread = std::thread::spawn(|| is_gone(rustix::thread::gettid().as_raw_pid() as u32));
        assert!(!thread.join().unwrap());
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert!(!is_gone(child.id()));
        child.kill().unwrap();
        while !is_gone(child.id()) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(is_gone(child.id()));
    }

    #[test]
    fn r11_a_pending_kill_is_seen_in_the_status() {
        let status = |state: &str, own: &str, shared: &str| {
            format!(
                "Name:\tcat\nState:\t{state}\nSigQ:\t1/5\nSigPnd:\t{own}\nShdPnd:\t{shared}\n\
                 SigBlk:\t0000000000000100\n"
            )
        };
        let none = "0000000000000000";
        let kill = "0000000000000100";
        let others = "fffffffffffffeff";
        assert!(!is_over(&status("D (disk sleep)", none, others)));
        assert!(is_over(&status("D (disk sleep)", kill, none)));
        assert!(is_over(&status("D (disk sleep)", others, kill)));
        assert!(is_over(&status("Z (zombie)", none, none)));
        for bad in ["", "State", "State:", "SigPnd:\t", "SigPnd:\tnonsense"] {
            assert!(!is_over(bad), "{bad}");
        }
    }
}
