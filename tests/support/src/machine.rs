//! What tests take from the machine, made so that it is there.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Once;

use rustix::fs::Mode;

/// True for root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// True for root; for others it says what is not tested. The tests are run as root, too.
pub fn needs_root(what: &str) -> bool {
    if !is_root() {
        eprintln!("skipped: only root can {what}");
    }
    is_root()
}

/// Files of the tests can be read by other users whatever the umask. Programs hear what a terminal
/// sends, also where the tests were started in the background or with nohup, which ignores it. And
/// every user may open the FUSE device, as udev arranges it where fuse3 was installed while it ran. In
/// a fresh container the device may be root's alone. Only root can change that, and only root's tests
/// start commands of other users.
pub fn set_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        rustix::process::umask(Mode::from_raw_mode(0o022));
        for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
            // SAFETY: the default action runs no code of this process.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        const DEVICE: &str = "/dev/fuse";
        let closed = fs::metadata(DEVICE).is_ok_and(|meta| meta.mode() & 0o666 != 0o666);
        if closed && is_root() {
            fs::set_permissions(DEVICE, Permissions::from_mode(0o666)).unwrap();
        }
    });
}

/// A line for sh(1) in a mount namespace: `/dev` has these devices alone. What is in `/dev/shm` stays, where
/// temporary files of tests may be.
pub fn own_dev(devices: &str) -> String {
    format!(
        "mkdir -p dev && mount -t tmpfs none dev && mkdir dev/shm && \
         if [ -d /dev/shm ]; then mount --bind /dev/shm dev/shm; fi && \
         for name in {devices}; do : >dev/$name && mount --bind /dev/$name dev/$name || exit 1; done && \
         mount --rbind dev /dev && cd \"$PWD\""
    )
}
